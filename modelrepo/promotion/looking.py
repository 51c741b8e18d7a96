"""Read what is live: the cheap look that workers take all the time, and the whole one that a change begins with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import Corrupt, InvalidActiveFile, ModelNotFound, NewerFormat, ObjectNotFound, VersionNotFound
from modelrepo.promotion.active_file import parse
from modelrepo.promotion.history import HistoryEntry, HistoryReader
from modelrepo.promotion.state import ActiveState, Live, derive, with_digest
from modelrepo.stores.port import ObjectStore


class VersionIndex(Protocol):
    """What promotion asks of the versions in a repository."""

    def digest(self, model: str, version: str) -> str:
        """Return the version's digest, 64 hex digits.

        Raises:
            VersionNotFound, ModelNotFound
        """
        ...

    def versions(self, model: str) -> Sequence[str]:
        """Return the ids of the versions that are not deleted."""
        ...

    def is_deleted(self, model: str, version: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class FileSeen:
    """The bytes of an `active.yaml`, None where there is none, and its etag from no later than the bytes."""

    data: bytes | None
    etag: str | None = None

    @property
    def digest(self) -> str | None:
        return None if self.data is None else sha256(self.data)


@dataclass(frozen=True, slots=True)
class View:
    """All that a change is decided on. Where the file is no YAML, `unreadable` is set and `state` the history's."""

    file: FileSeen
    entries: tuple[HistoryEntry, ...]
    state: ActiveState
    unreadable: InvalidActiveFile | None = None


@dataclass(slots=True)
class _Polled:
    reader: HistoryReader
    data: bytes | None = None
    state: ActiveState | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Looker:
    """Reads the promotion files of every model in a store; may be shared by threads."""

    def __init__(self, store: ObjectStore, index: VersionIndex) -> None:
        self._store, self._index = store, index
        self._models: dict[str, _Polled] = {}
        self._lock = threading.Lock()

    def state(self, model: str) -> ActiveState:
        """Return what is live; where nothing has changed since the last look, for one read and one probe."""
        polled = self._polled(model)
        with polled.lock:
            data = self.file(model, with_etag=False).data
            known = polled.state
            settled = known is not None and data == polled.data and (known.digest or not known.edited_by_hand)
            if known is not None and settled and not polled.reader.since(known.generation + 1):
                return known
            state = self._complete(derive(model, data, self._enough(polled.reader, data)))
            polled.data, polled.state = data, state
            polled.reader.forget_before(state.generation)
            return state

    def view(self, model: str) -> View:
        """Look at everything."""
        polled = self._polled(model)
        with polled.lock:
            file = self.file(model, with_etag=True)
            entries = polled.reader.all()
        try:
            return View(file, entries, self._complete(derive(model, file.data, entries)))
        except InvalidActiveFile as error:
            return View(file, entries, _recorded(model, entries), unreadable=error)

    def recorded(self, model: str) -> ActiveState:
        """Return what was live by the history alone, whatever the file says now."""
        return _recorded(model, self.entries(model))

    def entries(self, model: str) -> tuple[HistoryEntry, ...]:
        """Return the whole history."""
        polled = self._polled(model)
        with polled.lock:
            return polled.reader.all()

    def file(self, model: str, *, with_etag: bool) -> FileSeen:
        """Read `active.yaml`."""
        key = layout.active_file(model)
        try:
            # The etag first: if the file changes between the two, a conditional replace fails, as it must.
            etag = self._store.stat(key).etag if with_etag else None
            return FileSeen(self._store.read(key), etag)
        except ObjectNotFound:
            return FileSeen(None)

    def digest_of(self, model: str, version: str) -> str | None:
        """Return the digest of a version, None where it does not exist."""
        try:
            return self._index.digest(model, version).removeprefix("sha256:")
        except (VersionNotFound, ModelNotFound):
            return None

    def _polled(self, model: str) -> _Polled:
        with self._lock:
            return self._models.setdefault(model, _Polled(HistoryReader(self._store, model)))

    def _enough(self, reader: HistoryReader, data: bytes | None) -> tuple[HistoryEntry, ...]:
        """Return the history from the file's entry on, or all of it where the file is nobody's."""
        if data is not None:
            try:
                generation = parse(data).generation
            except InvalidActiveFile:
                return reader.all()
            entries = reader.since(generation or 0)
            if entries and entries[0].active_sha256 == sha256(data):
                return entries
        return reader.all()

    def _complete(self, state: ActiveState) -> ActiveState:
        def digest_of(version: str) -> str | None:
            # Else one bad manifest that a hand edit names would stand in the way of every change that mends it.
            with suppress(Corrupt, NewerFormat):
                return self.digest_of(state.model, version)
            return None

        return with_digest(state, digest_of, lambda: self._index.versions(state.model))


def _recorded(model: str, entries: tuple[HistoryEntry, ...]) -> ActiveState:
    live = Live().after(entries)
    return ActiveState(model, live.version, live.digest, live.generation, live.config, live.rollout)
