"""The changes of what is live: promote, roll back, block, delete, edit."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from modelrepo import canonical, layout
from modelrepo.canonical import Json, sha256
from modelrepo.errors import GenerationChanged, InvalidInput, ObjectExists
from modelrepo.formats import FORMAT
from modelrepo.identity import whoami
from modelrepo.names import check_model_name, check_version_id
from modelrepo.promotion import writing
from modelrepo.promotion.active_file import Rollout, parse, render
from modelrepo.promotion.deciding import Rules, shown
from modelrepo.promotion.history import HistoryEntry, Kind
from modelrepo.promotion.looking import Looker, VersionIndex, View
from modelrepo.promotion.state import ActiveState, blocked, owner_of
from modelrepo.promotion.wishes import Author, Wish
from modelrepo.stores.port import ObjectStore

__all__ = ["Promotions", "VersionIndex"]

_RACES = 1000
"""Each lost race is another's change that happened; so many in a row are a fault and no crowd."""

_SAVING_S = (0.02, 0.1, 0.3)
"""An editor that saves in place leaves the file empty for a moment: look again before it is called unreadable."""


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
        self._store, self._sleep = store, sleep
        self._author = Author(by or whoami(), clock)
        self._looker = Looker(store, index)
        self._rules = Rules(self._looker, index, self._author)

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
        return self._rules.previous(model, self._looker.view(check_model_name(model)))

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
        max_fetching: int | None = None,
        retry: bool = False,
    ) -> HistoryEntry:
        """Make a version the active one.

        `version`: an id, `active` (to change its config alone) or `previous`. `config_set`: laid over the config that
        is in force; `config_unset`: taken out of it, so that the version's own values count again. `expect`: the
        generation that is to be replaced; without it a lost race is run again. `force`: though the version is blocked,
        or an edited file unreadable. `rollout`: how it spreads, or its `max_unavailable` alone; `max_fetching`: as a
        Rollout has it.

        Where the version is live already with that config and rollout, nothing changes and the entry that made it so
        is returned. `retry` writes a generation all the same: workers that have refused the version try it at once.

        Raises:
            VersionNotFound, VersionDeleted, VersionBlocked, GenerationChanged, InvalidActiveFile
        """
        canonical.dumps(config_set or {})

        def decide(view: View) -> Wish | HistoryEntry:
            return self._rules.promote(
                model,
                version,
                view,
                config_set=config_set or {},
                config_unset=config_unset,
                rollout=_spread(view.state.rollout, rollout, max_fetching),
                force=force,
                retry=retry,
                reason=reason,
            )

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

        def decide(view: View) -> Wish:
            left.append(view.state.version)
            return self._rules.rollback(model, view, left[0], to=to, block=block, now=now, reason=reason)

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

    def vendored(self, model: str, version: str, reason: str | None = None) -> HistoryEntry:
        """Write down that the wheels of a version's environment were added for another platform."""
        return self._speak_of(Kind.VENDOR, model, version, reason)

    def delete(self, model: str, version: str, reason: str | None = None) -> HistoryEntry:
        """Delete a version: its id stays taken, and prune frees the bytes that nothing else names.

        From its entry in the history on, no change makes the version live; the tombstone beside the manifest comes
        after it. Killed in between, it is gone through with when it is run again.

        Raises:
            VersionInUse: it is active, or what a rollback would bring back. VersionNotFound
        """
        check_version_id(version)
        entry = self._change(model, lambda view: self._rules.delete(model, version, view, reason))
        document: Json = {
            "format": FORMAT,
            "version": version,
            "generation": entry.generation,
            "by": entry.by,
            "at": entry.at,
            "reason": entry.reason,
        }
        with suppress(ObjectExists):  # only its presence counts
            writing.retried(lambda: self._store.create(layout.tombstone(model, version), canonical.dumps(document)))
        return entry

    def refuse_deletion(self, model: str, version: str) -> None:
        """Raise what `delete` would raise, and change nothing."""
        self._rules.delete(check_model_name(model), check_version_id(version), self._saved_view(model), None)

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
        edited = parse(new_bytes, f"active.yaml of {model}")
        if edited.version is None:
            raise InvalidInput(f"cannot save active.yaml of {model}: it names no version")
        view = self._looker.view(model)
        self._rules.digest(model, edited.version, view)
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
        self, model: str, decide: Callable[[View], Wish | HistoryEntry], *, expect: int | None = None
    ) -> HistoryEntry:
        check_model_name(model)
        for _ in range(_RACES):
            view = self._saved_view(model)
            self._check_expected(model, view, expect)
            wish = decide(view)
            if view.state.edited_by_hand:
                writing.append(self._store, model, self._author.edit_entry(view))
                continue  # whoever recorded it: now decide again, on top of the edit
            if isinstance(wish, HistoryEntry):
                self._mend(model, view)
                return wish
            generation = view.state.generation + 1
            data = render(wish.live.file(generation))
            entry = self._author.entry(view, wish, sha256(data))
            if writing.append(self._store, model, entry):
                lost = None if view.unreadable is None else view.file.data
                writing.show(self._store, self._looker, model, view.file, entry, data, lost=lost)
                return entry
        raise GenerationChanged(
            f"cannot change {model}: {_RACES} others were faster, one after the other; run it again"
        )

    def _mend(self, model: str, view: View) -> None:
        """Write the file of the newest change once more, where it is behind."""
        if view.state.stale_file:
            writing.show(self._store, self._looker, model, view.file, view.entries[-1], shown(view.state))

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
            writing.append(self._store, model, self._author.edit_entry(view))
        raise GenerationChanged(f"cannot record the edit of {model}: it was overwritten; look at `modelrepo status`")

    def _speak_of(self, kind: Kind, model: str, version: str, reason: str | None) -> HistoryEntry:
        check_version_id(version)
        return self._change(model, lambda view: self._rules.speak_of(kind, model, version, view, reason))

    def _editable(self, view: View) -> bytes:
        if view.file.data is not None and not view.state.stale_file:
            return view.file.data
        return shown(view.state)


def _spread(before: Rollout, rollout: Rollout | str | None, max_fetching: int | None) -> Rollout | None:
    """Return how a change is to spread where its author says so, None where it is as before."""
    if rollout is None and max_fetching is None:
        return None
    wanted = rollout if isinstance(rollout, Rollout) else replace(before, now=False)
    if isinstance(rollout, str):
        wanted = replace(wanted, max_unavailable=rollout)
    return wanted if max_fetching is None else replace(wanted, max_fetching=max_fetching)
