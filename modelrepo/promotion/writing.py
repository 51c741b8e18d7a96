"""Write down a change: its history entry, which makes it happen, and then `active.yaml`, which shows it."""

from __future__ import annotations

from collections.abc import Callable

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import NoSpace, ObjectChanged, ObjectExists, ObjectNotFound, Unreachable
from modelrepo.promotion.history import HistoryEntry
from modelrepo.promotion.looking import FileSeen, Looker
from modelrepo.promotion.state import owner_of
from modelrepo.stores.port import LocalFolders, ObjectStore

_TRIES = 5
"""How often a store without an answer is asked again before we say so, where it does not do that by itself."""

_ROUNDS = 100
"""Each round lost is another's write of the file."""


def append(store: ObjectStore, model: str, entry: HistoryEntry) -> bool:
    """Make the change happen; False where another change has its generation.

    Raises:
        Unreachable: no answer, several times over; the change may or may not have happened.
    """
    key, data = layout.history_entry(model, entry.generation), entry.to_bytes()
    for attempt in range(_TRIES):
        try:
            store.create(key, data)
            return True
        except ObjectExists:
            return False
        except Unreachable as error:
            # It may have been written all the same: look, and only then try again.
            if not error.transient or attempt + 1 == _TRIES:
                raise
            try:
                return store.read(key) == data
            except (ObjectNotFound, Unreachable):
                continue
    return False


def show(
    store: ObjectStore,
    looker: Looker,
    model: str,
    base: FileSeen,
    entry: HistoryEntry,
    data: bytes,
    *,
    lost: bytes | None = None,
) -> None:
    """Put `data` into `active.yaml`, in place of `base` or of what an older change wrote there; `lost` is kept first.

    A newer change's file and an edit that was saved meanwhile are left alone. The change has happened already, so a
    store that fails here is no failure of the change: readers find the entry, and the next writer mends the file.
    """
    try:
        if lost is not None:
            _keep_lost(store, model, lost)
        for _ in range(_ROUNDS):
            if _put(store, model, base, data):
                return
            base = looker.file(model, with_etag=True)
            if base.data is not None:
                owner = owner_of(base.digest, looker.entries(model))
                if owner is None or owner.generation >= entry.generation:
                    return
    except (Unreachable, NoSpace):
        return


def _keep_lost(store: ObjectStore, model: str, data: bytes) -> None:
    """Keep a save that a change overwrites."""
    try:
        store.create(layout.lost_save(model, sha256(data)), data)
    except ObjectExists:
        pass


def put_edit(store: ObjectStore, model: str, base: FileSeen, data: bytes) -> bool:
    """Save an edit, as an editor would; False where the file is not `base` any more."""
    return _put(store, model, base, data)


def retried(call: Callable[[], None]) -> None:
    """Do what may be repeated, again where there is no answer."""
    for _ in range(_TRIES - 1):
        try:
            return call()
        except Unreachable as error:
            if not error.transient:
                raise
    return call()


def _put(store: ObjectStore, model: str, base: FileSeen, data: bytes) -> bool:
    key = layout.active_file(model)
    if isinstance(store, LocalFolders):
        return _put_locally(store, store, model, base, data)
    for attempt in range(_TRIES):
        try:
            if base.data is None:
                store.create(key, data)
            else:
                store.replace(key, data, if_etag=base.etag)
            return True
        except (ObjectExists, ObjectChanged):
            return _reads(store, key, data)
        except Unreachable as error:
            if error.transient and _reads(store, key, data):
                return True
            if not error.transient or attempt + 1 == _TRIES:
                raise
    return False


def _put_locally(store: ObjectStore, folders: LocalFolders, model: str, base: FileSeen, data: bytes) -> bool:
    key = layout.active_file(model)
    with folders.locked(layout.model_folder(model)):
        try:
            present = store.read(key)
        except ObjectNotFound:
            present = None
        if present != base.data:
            return present == data
        if present is None:
            try:
                store.create(key, data)
            except (ObjectExists, ObjectChanged):
                return False
            return True
        displaced = folders.exchange(key, data)
    if displaced is not None and displaced not in (present, data):
        _keep_lost(store, model, displaced)
    return True


def _reads(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        return store.read(key) == data
    except ObjectNotFound:
        return False
