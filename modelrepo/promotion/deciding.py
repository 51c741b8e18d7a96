"""What a change comes to, given all that there is to see: the rules of docs/format.md, "Promotion"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from modelrepo import canonical
from modelrepo.canonical import Json, sha256
from modelrepo.errors import (
    Corrupt,
    GenerationChanged,
    InvalidInput,
    VersionBlocked,
    VersionDeleted,
    VersionInUse,
    VersionNotFound,
)
from modelrepo.names import check_version_id
from modelrepo.promotion.active_file import Rollout, render
from modelrepo.promotion.history import ACTIVATING, HistoryEntry, Kind
from modelrepo.promotion.looking import Looker, VersionIndex, View
from modelrepo.promotion.state import ActiveState, Live, blocked, deleted, way_back
from modelrepo.promotion.wishes import Author, Wish


class Rules:
    """Decides on a view; may be shared by threads."""

    def __init__(self, looker: Looker, index: VersionIndex, author: Author) -> None:
        self._looker, self._index, self._author = looker, index, author

    def promote(
        self,
        model: str,
        version: str,
        view: View,
        *,
        config_set: Mapping[str, Json],
        config_unset: Collection[str],
        rollout: Rollout | None,
        force: bool,
        retry: bool,
        reason: str | None,
    ) -> Wish | HistoryEntry:
        """Return the change that makes `version` live, or the entry since which it is."""
        if view.unreadable is not None and not force:
            raise view.unreadable
        target = self._meant(model, version, view)
        digest = self.digest(model, target, view)
        if not force and (by := blocked(view.entries).get(target)):
            raise VersionBlocked(
                f"cannot promote {model}@{target}: blocked by generation {by.generation}, {by.by}"
                f"{f' ({by.reason})' if by.reason else ''}; unblock it, or promote with --force"
            )
        laid = {**view.state.config, **config_set}
        config = {key: value for key, value in laid.items() if key not in config_unset}
        live = Live(target, digest, config, rollout or replace(view.state.rollout, now=False))
        if not retry and (made := _made(view, live)) is not None:
            return made
        same = target == view.state.version and (bool(config_set or config_unset) or rollout is not None)
        return Wish(Kind.CONFIG if same else Kind.PROMOTE, target, digest, live, reason)

    def rollback(
        self, model: str, view: View, leaving: str | None, *, to: str | None, block: bool, now: bool, reason: str | None
    ) -> Wish:
        """Return the change that goes back from `leaving`, to `to` or to the version before."""
        state = view.state
        if state.version != leaving:
            raise GenerationChanged(
                f"cannot roll back {model}: {leaving} was to be left, and by generation {state.generation} "
                f"{state.version} is active; look at `modelrepo history {model}`, then run it again if it is needed"
            )
        back = self._back(model, view, to)
        target = to or (back.version if back else None)
        if target is None:
            live_now = f"{model}@{state.version} is active and" if state.version else f"{model} was never promoted:"
            raise VersionNotFound(
                f"cannot roll back {model}: {live_now} no version before it is there that is neither "
                "blocked nor deleted; promote one"
            )
        digest = self.digest(model, target, view)
        live = Live(target, digest, back.config if back else state.config, replace(state.rollout, now=now))
        return Wish(Kind.ROLLBACK, target, digest, live, reason, back.generation if back else None, blocks=block)

    def speak_of(self, kind: Kind, model: str, version: str, view: View, reason: str | None) -> Wish:
        """Return a change that leaves what is live alone: block, unblock, vendor."""
        if view.unreadable is not None:
            raise view.unreadable
        if kind is Kind.UNBLOCK and version not in blocked(view.entries):
            raise InvalidInput(f"cannot unblock {model}@{version}: it is not blocked")
        digest = None if kind is Kind.UNBLOCK else self.digest(model, version, view)
        return Wish(kind, version, digest or self._looker.digest_of(model, version), _live(view.state), reason)

    def delete(self, model: str, version: str, view: View, reason: str | None) -> Wish | HistoryEntry:
        """Return the change that deletes a version, or the entry that has begun to; one with a torn manifest too."""
        if view.unreadable is not None:
            raise view.unreadable
        begun = next((each for each in view.entries if each.kind is Kind.DELETE and each.version == version), None)
        if begun is not None:
            return begun
        if version == view.state.version:
            raise VersionInUse(
                f"cannot delete {model}@{version}: it is active (generation {view.state.generation}); "
                "promote another version first"
            )
        back = way_back(self._author.with_edit(view), lambda each: self._readable(model, each))
        if back is not None and version == back.version:
            raise VersionInUse(
                f"cannot delete {model}@{version}: it is what `modelrepo rollback {model}` brings back; "
                "promote another version first, or block this one"
            )
        digest = None
        with suppress(Corrupt):
            digest = self._index.digest(model, version).removeprefix("sha256:")
        return Wish(Kind.DELETE, version, digest, _live(view.state), reason)

    def previous(self, model: str, view: View) -> str | None:
        """Return the version that `@previous` means."""
        back = self._way_back(model, view)
        return back.version if back else None

    def digest(self, model: str, version: str, view: View) -> str:
        """Return the digest of a version that may be used; raises VersionDeleted, VersionNotFound."""
        digest = self._index.digest(model, version).removeprefix("sha256:")
        if version in deleted(view.entries) or self._index.is_deleted(model, version):
            raise VersionDeleted(f"cannot use {model}@{version}: it was deleted; push it anew under another id")
        return digest

    def _back(self, model: str, view: View, to: str | None) -> HistoryEntry | None:
        if to is None:
            return self._way_back(model, view)
        check_version_id(to)
        if to == view.state.version:
            raise InvalidInput(f"cannot roll back {model} to {to}: it is active already")
        if (by := blocked(view.entries).get(to)) is not None:
            raise VersionBlocked(
                f"cannot roll back {model} to {to}: blocked by generation {by.generation}, {by.by}; unblock it first"
            )
        return next((each for each in reversed(view.entries) if each.kind in ACTIVATING and each.version == to), None)

    def _meant(self, model: str, version: str, view: View) -> str:
        if version == "active" and view.state.version is not None:
            return view.state.version
        if version == "previous":
            back = self._way_back(model, view)
            if back is None:
                raise VersionNotFound(f"{model}@previous is no version: there is none to go back to; name one")
            return back.version
        if version == "active":
            raise VersionNotFound(f"{model}@active is no version: {model} was never promoted; name one")
        return check_version_id(version)

    def _way_back(self, model: str, view: View) -> HistoryEntry | None:
        return way_back(self._author.with_edit(view), lambda version: self._usable(model, version))

    def _readable(self, model: str, version: str) -> bool:
        # No rollback brings back what is torn, so that may be deleted; and then it stands in no rollback's way.
        with suppress(Corrupt):
            return self._usable(model, version)
        return False

    def _usable(self, model: str, version: str) -> bool:
        return self._looker.digest_of(model, version) is not None and not self._index.is_deleted(model, version)


def shown(state: ActiveState) -> bytes:
    """Return the `active.yaml` that says what is in force."""
    return render(_live(state).file(state.generation))


def _live(state: ActiveState) -> Live:
    return Live(state.version, state.digest, state.config, state.rollout)


def _made(view: View, live: Live) -> HistoryEntry | None:
    """Return the entry since which `live` is in force, None where it is not, or where its file is past mending."""
    state = view.state
    wanted = (live.version, live.digest, canonical.dumps(live.config), live.rollout)
    found = (state.version, state.digest, canonical.dumps(state.config), replace(state.rollout, now=False))
    if view.unreadable is not None or wanted != found:
        return None
    if state.stale_file and sha256(shown(state)) != view.entries[-1].active_sha256:
        return None
    return next((entry for entry in reversed(view.entries) if entry.kind in ACTIVATING), None)
