"""The changes of what is live: promote, roll back, block, edit."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from modelrepo import canonical
from modelrepo.canonical import Json, sha256
from modelrepo.errors import GenerationChanged, InvalidInput, VersionBlocked, VersionDeleted, VersionNotFound
from modelrepo.identity import whoami
from modelrepo.names import check_model_name, check_version_id
from modelrepo.promotion import writing
from modelrepo.promotion.active_file import Rollout, parse, render
from modelrepo.promotion.history import ACTIVATING, HistoryEntry, Kind
from modelrepo.promotion.looking import Looker, VersionIndex, View
from modelrepo.promotion.state import ActiveState, Live, blocked, deleted, owner_of, way_back
from modelrepo.stores.port import ObjectStore

__all__ = ["Promotions", "VersionIndex"]

_RACES = 1000
"""Each lost race is another's change that happened; so many in a row are a fault and no crowd."""

_SAVING_S = (0.02, 0.1, 0.3)
"""An editor that saves in place leaves the file empty for a moment: look again before it is called unreadable."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """A change that is decided but has no number yet."""

    kind: Kind
    version: str
    digest: str | None
    live: Live
    reason: str | None
    from_generation: int | None = None
    blocks: bool = True


class Promotions:
    """Everything that may be done to what is live in one repository; may be shared by threads.

    `by`: who the history says it was. `clock`: the time that the history gets; nothing depends on it.
    """

    def __init__(
        self,
        store: ObjectStore,
        index: VersionIndex,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        by: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._index, self._clock, self._sleep = store, index, clock, sleep
        self._by = _encodable(by or whoami())
        self._looker = Looker(store, index)

    def state(self, model: str) -> ActiveState:
        """Return what is live. Where nothing has changed since the last look, it costs one read and one probe.

        Raises:
            InvalidActiveFile: a hand-edited file cannot be read; what ran, should run on.
        """
        return self._looker.state(check_model_name(model))

    def recorded(self, model: str) -> ActiveState:
        """Return what the history says, for somebody who cannot follow a hand edit and has nothing to run on."""
        return self._looker.recorded(check_model_name(model))

    def history(self, model: str) -> tuple[HistoryEntry, ...]:
        """Return every change, oldest first."""
        return self._looker.entries(check_model_name(model))

    def blocked(self, model: str) -> Mapping[str, HistoryEntry]:
        """Return the versions that may not be promoted, each with the entry that says so."""
        return blocked(self.history(model))

    def previous(self, model: str) -> str | None:
        """Return the version that a rollback would bring back, which is what `@previous` means."""
        view = self._looker.view(check_model_name(model))
        back = way_back(self._with_edit(view), lambda version: self._usable(model, version))
        return back.version if back else None

    def promote(
        self,
        model: str,
        version: str,
        *,
        config_set: Mapping[str, Json] | None = None,
        config_unset: Collection[str] = (),
        expect: int | None = None,
        force: bool = False,
        reason: str | None = None,
        rollout: Rollout | str | None = None,
        retry: bool = False,
    ) -> HistoryEntry:
        """Make a version the active one.

        `version`: an id, `active` (to change its config alone) or `previous`. `config_set`: laid over the config that
        is in force; `config_unset`: taken out of it, so that the version's own values count again. `expect`: the
        generation that is to be replaced; without it a lost race is run again. `force`: though the version is blocked,
        or an edited file unreadable.

        Where the version is live already with that config and rollout, nothing changes and the entry that made it so
        is returned. `retry` writes a generation all the same: workers that have refused the version try it at once.

        Raises:
            VersionNotFound, VersionDeleted, VersionBlocked, GenerationChanged, InvalidActiveFile
        """
        canonical.dumps(config_set or {})
        wanted = Rollout(rollout) if isinstance(rollout, str) else rollout

        def decide(view: View) -> _Wish | HistoryEntry:
            if view.unreadable is not None and not force:
                raise view.unreadable
            target = self._meant(model, version, view)
            digest = self._digest(model, target, view)
            if not force and (by := blocked(view.entries).get(target)):
                raise VersionBlocked(
                    f"cannot promote {model}@{target}: blocked by generation {by.generation}, {by.by}"
                    f"{f' ({by.reason})' if by.reason else ''}; unblock it, or promote with --force"
                )
            laid = {**view.state.config, **(config_set or {})}
            config = {key: value for key, value in laid.items() if key not in config_unset}
            live = Live(target, digest, config, wanted or replace(view.state.rollout, now=False))
            if not retry and (made := self._made(view, live)) is not None:
                return made
            same = target == view.state.version and (bool(config_set or config_unset) or wanted is not None)
            return _Wish(Kind.CONFIG if same else Kind.PROMOTE, target, digest, live, reason)

        return self._change(model, decide, expect=expect)

    def rollback(
        self, model: str, *, to: str | None = None, block: bool = True, now: bool = False, reason: str | None = None
    ) -> HistoryEntry:
        """Go back to the version before, with the config that it had, and block the one that is left.

        `now`: workers end running attempts of the version that is left, uncounted, rather than let them finish.

        Raises:
            VersionNotFound: there is nothing to go back to. VersionBlocked, VersionDeleted: `to` is.
            GenerationChanged: somebody else was faster; what is active now is not what was to be left.
        """
        left: list[str | None] = []

        def decide(view: View) -> _Wish:
            state = view.state
            left.append(state.version)
            if state.version != left[0]:
                raise GenerationChanged(
                    f"cannot roll back {model}: {left[0]} was to be left, and by generation {state.generation} "
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
            digest = self._digest(model, target, view)
            rollout = replace(state.rollout, now=now)
            live = Live(target, digest, back.config if back else state.config, rollout)
            came_from = back.generation if back else None
            return _Wish(Kind.ROLLBACK, target, digest, live, reason, came_from, blocks=block)

        return self._change(model, decide)

    def block(self, model: str, version: str, reason: str | None = None) -> HistoryEntry:
        """Refuse a version for promotion; what serves it goes on."""
        return self._speak_of(Kind.BLOCK, model, version, reason)

    def unblock(self, model: str, version: str, reason: str | None = None) -> HistoryEntry:
        """Allow a version again.

        Raises:
            InvalidInput: it is not blocked.
        """
        return self._speak_of(Kind.UNBLOCK, model, version, reason)

    def active_bytes(self, model: str) -> bytes:
        """Return what a person is to edit: the file, or what it should say where it is behind or absent."""
        return self._editable(self._looker.view(check_model_name(model)))

    def edit(self, model: str, new_bytes: bytes, seen_bytes: bytes) -> HistoryEntry:
        """Save an edited `active.yaml` and record it. `seen_bytes`: what `active_bytes` gave before the edit.

        Raises:
            InvalidActiveFile, VersionNotFound, VersionDeleted: nothing was written.
            GenerationChanged: somebody else changed it meanwhile; nothing was written.
        """
        check_model_name(model)
        edited = parse(new_bytes)
        if edited.version is None:
            raise InvalidInput(f"cannot save active.yaml of {model}: it names no version")
        view = self._looker.view(model)
        self._digest(model, edited.version, view)
        changed = GenerationChanged(
            f"cannot save active.yaml of {model}: it was changed while you edited; edit it again"
        )
        if self._editable(view) != seen_bytes:
            raise changed
        while owner_of(sha256(new_bytes), view.entries):
            new_bytes += b"\n# edited\n"  # else it would be taken for that older change's file
        if not writing.put_edit(self._store, model, view.file, new_bytes):
            raise changed
        return self._record_edit(model, sha256(new_bytes))

    def _change(
        self, model: str, decide: Callable[[View], _Wish | HistoryEntry], *, expect: int | None = None
    ) -> HistoryEntry:
        check_model_name(model)
        for _ in range(_RACES):
            view = self._saved_view(model)
            self._check_expected(model, view, expect)
            wish = decide(view)
            if view.state.edited_by_hand:
                writing.append(self._store, model, self._edit_entry(view))
                continue  # whoever recorded it: now decide again, on top of the edit
            if isinstance(wish, HistoryEntry):
                self._mend(model, view)
                return wish
            generation = view.state.generation + 1
            data = render(wish.live.file(generation))
            entry = self._entry(view, wish, sha256(data))
            if writing.append(self._store, model, entry):
                lost = None if view.unreadable is None else view.file.data
                writing.show(self._store, self._looker, model, view.file, entry, data, lost=lost)
                return entry
        raise GenerationChanged(
            f"cannot change {model}: {_RACES} others were faster, one after the other; run it again"
        )

    def _made(self, view: View, live: Live) -> HistoryEntry | None:
        """Return the entry since which `live` is in force, None where it is not, or where its file is past mending."""
        state = view.state
        wanted = (live.version, live.digest, canonical.dumps(live.config), live.rollout)
        found = (state.version, state.digest, canonical.dumps(state.config), replace(state.rollout, now=False))
        if view.unreadable is not None or wanted != found:
            return None
        if state.stale_file and sha256(self._shown(state)) != view.entries[-1].active_sha256:
            return None
        return next((entry for entry in reversed(view.entries) if entry.kind in ACTIVATING), None)

    def _mend(self, model: str, view: View) -> None:
        """Write the file of the newest change once more, where it is behind."""
        if view.state.stale_file:
            writing.show(self._store, self._looker, model, view.file, view.entries[-1], self._shown(view.state))

    def _shown(self, state: ActiveState) -> bytes:
        return render(Live(state.version, state.digest, state.config, state.rollout).file(state.generation))

    def _saved_view(self, model: str) -> View:
        for pause_s in _SAVING_S:
            view = self._looker.view(model)
            if view.unreadable is None:
                return view
            self._sleep(pause_s)
        return self._looker.view(model)

    def _check_expected(self, model: str, view: View, expect: int | None) -> None:
        if expect is None:
            return
        if view.state.generation != expect:
            raise GenerationChanged(
                f"cannot change {model}: generation {expect} was expected and {view.state.generation} is in force "
                f"({view.state.version}); look at `modelrepo history {model}`, then run it again"
            )
        if view.state.edited_by_hand:
            raise GenerationChanged(
                f"cannot change {model}: active.yaml was edited by hand after generation {expect}, to "
                f"{view.state.version}; look at it, then run it again without --expect"
            )

    def _record_edit(self, model: str, digest: str) -> HistoryEntry:
        for _ in range(_RACES):
            view = self._looker.view(model)
            if (recorded := owner_of(digest, view.entries)) is not None:
                return recorded
            if view.file.digest != digest or not view.state.edited_by_hand:
                break
            writing.append(self._store, model, self._edit_entry(view))
        raise GenerationChanged(f"cannot record the edit of {model}: it was overwritten; look at `modelrepo status`")

    def _speak_of(self, kind: Kind, model: str, version: str, reason: str | None) -> HistoryEntry:
        check_version_id(version)

        def decide(view: View) -> _Wish:
            if view.unreadable is not None:
                raise view.unreadable
            if kind is Kind.UNBLOCK and version not in blocked(view.entries):
                raise InvalidInput(f"cannot unblock {model}@{version}: it is not blocked")
            state = view.state
            live = Live(state.version, state.digest, state.config, state.rollout)
            digest = None if kind is Kind.UNBLOCK else self._digest(model, version, view)
            return _Wish(kind, version, digest or self._looker.digest_of(model, version), live, reason)

        return self._change(model, decide)

    def _back(self, model: str, view: View, to: str | None) -> HistoryEntry | None:
        if to is None:
            return way_back(self._with_edit(view), lambda version: self._usable(model, version))
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
            back = way_back(self._with_edit(view), lambda each: self._usable(model, each))
            if back is None:
                raise VersionNotFound(f"{model}@previous is no version: there is none to go back to; name one")
            return back.version
        if version == "active":
            raise VersionNotFound(f"{model}@active is no version: {model} was never promoted; name one")
        return check_version_id(version)

    def _with_edit(self, view: View) -> tuple[HistoryEntry, ...]:
        return (*view.entries, self._edit_entry(view)) if view.state.edited_by_hand else view.entries

    def _digest(self, model: str, version: str, view: View) -> str:
        digest = self._index.digest(model, version).removeprefix("sha256:")
        if version in deleted(view.entries) or self._index.is_deleted(model, version):
            raise VersionDeleted(f"cannot use {model}@{version}: it was deleted; push it anew under another id")
        return digest

    def _usable(self, model: str, version: str) -> bool:
        return self._looker.digest_of(model, version) is not None and not self._index.is_deleted(model, version)

    def _editable(self, view: View) -> bytes:
        if view.file.data is not None and not view.state.stale_file:
            return view.file.data
        return self._shown(view.state)

    def _edit_entry(self, view: View) -> HistoryEntry:
        state = view.state
        assert state.version is not None
        assert view.file.digest is not None
        live = Live(state.version, state.digest, state.config, state.rollout)
        wish = _Wish(Kind.HAND_EDIT, state.version, state.digest, live, "edited by hand")
        return self._entry(view, wish, view.file.digest)

    def _entry(self, view: View, wish: _Wish, active_sha256: str) -> HistoryEntry:
        return HistoryEntry(
            generation=view.state.generation + 1,
            kind=wish.kind,
            version=wish.version,
            digest=wish.digest,
            config=wish.live.config,
            rollout=wish.live.rollout,
            by=self._by,
            at=self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            change=secrets.token_hex(16),
            base_sha256=view.file.digest,
            active_sha256=active_sha256,
            from_generation=wish.from_generation,
            reason=None if wish.reason is None else _encodable(wish.reason),
            blocks=wish.blocks,
        )


def _encodable(text: str) -> str:
    # What comes from a command line may hold bytes that are no text; a history that cannot be written helps nobody.
    return text.encode("utf-8", "backslashreplace").decode()
