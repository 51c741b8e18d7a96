#!/bin/sh
# Release a model: check it, publish it where it has changed, make it the active version.
# Run again at the same commit it changes nothing. docs/howto/ci.md tells what it needs.
#
#   MODELREPO_REPO=s3://my-bucket/models sh release.sh MODEL [FOLDER]
#
# REUSE: the version whose checkpoints are taken, MODEL@active unless said; empty where they lie in the checkout.
# MODELREPO_QUEUE: where it is set, wait until every worker runs the version; WAIT is how long, 30m unless said.
set -eu

model=$1
folder=${2:-.}
reuse=${REUSE-$model@active}
commit=$(git -C "$folder" rev-parse HEAD)

set --
if [ -n "$reuse" ]; then
  code=0
  modelrepo show "$reuse" > /dev/null || code=$?
  case $code in
    0) set -- --reuse-checkpoints "$reuse" ;;
    3) echo "$reuse is not there: the checkpoints of a first version are taken from $folder" >&2 ;;
    *) exit "$code" ;;
  esac
fi

modelrepo check "$folder" "$@"
modelrepo push "$folder" --if-changed --locked --message "$(git -C "$folder" log -1 --format=%s)" "$@"

set --
if [ -n "${MODELREPO_QUEUE:-}" ]; then
  set -- --wait "${WAIT:-30m}"
fi
code=0
modelrepo promote "$model@git:$commit" --reason "commit $commit" "$@" || code=$?
if [ "$code" -eq 3 ]; then
  echo "commit $commit changes nothing of $model: what is active stays" >&2
  code=0
fi
exit "$code"
