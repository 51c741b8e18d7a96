#!/bin/sh
# Release a model: check it, publish it where it has changed, make it the active version.
# Run again at the same commit it changes nothing. docs/howto/ci.md tells what it needs.
#
#   MODELREPO_REPO=s3://my-bucket/models sh release.sh MODEL [FOLDER]
#
# REUSE: the version whose checkpoints are taken, MODEL@active unless said; empty where they lie in the checkout.
# MODELREPO_QUEUE: where it is set, wait until every worker runs the version; WAIT is how long, 30m unless said.
set -eu

model=${1:?"give MODEL [FOLDER]"}
folder=${2:-.}
export CI="${CI:-true}" # a missing uv.lock is then an error, and not made here
reuse=${REUSE-$model@active}
commit=$(git -C "$folder" rev-parse HEAD)
named=$(sed -n "s/^name: *[\"']*\([a-z0-9._-]*\).*/\1/p" "$folder/model.yaml")
if [ "${named:-$model}" != "$model" ]; then
  echo "$folder/model.yaml is that of '$named', not of '$model'" >&2 && exit 2
fi

is_there() { # yes or no; what is neither ends the script
  code=0
  said=$(modelrepo show "$1" 2>&1 > /dev/null) || code=$?
  case $code in
    0) return 0 ;;
    3) return 1 ;;
    *) echo "$said" >&2 && exit "$code" ;;
  esac
}

set --
if [ -n "$reuse" ] && is_there "$reuse"; then
  set -- --reuse-checkpoints "$reuse"
fi
modelrepo check "$folder" "$@"
modelrepo push "$folder" --if-changed --locked --message "$(git -C "$folder" log -1 --format=%s)" "$@"

if ! is_there "$model@git:$commit"; then
  echo "commit $commit changes nothing of $model: what is active stays"
  exit 0
fi
set --
if [ -n "${MODELREPO_QUEUE:-}" ]; then
  set -- --wait "${WAIT:-30m}"
fi
modelrepo promote "$model@git:$commit" --reason "commit $commit" "$@"
