"""Found a repository in a store, and open one: `repository.json` and `store.json`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from modelrepo import layout
from modelrepo.errors import Corrupt, ObjectExists, ObjectNotFound, RepositoryNotFound, StoreNotTrusted
from modelrepo.formats import FORMAT, check_format
from modelrepo.stores.port import LocalFolders, ObjectStore, ReadsInPieces, StoreAbility, StoreIdentity
from modelrepo.stores.probe import ProbeResult, probe

_MENDS = {
    layout.REPOSITORY: "restore it from a copy",
    layout.STORE: "remove it and run `modelrepo init --adopt`",
}


@dataclass(frozen=True, slots=True)
class Founded:
    """An open repository. `store` refuses to write where the store is not trusted; `distrust` then says why."""

    id: str
    store: ObjectStore
    distrust: str | None = None
    single_writer: bool = False


def found(
    store: ObjectStore,
    *,
    adopt: bool = False,
    single_writer: bool = False,
    client: Callable[[], ObjectStore] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Founded:
    """Probe the store and create `repository.json` and `store.json`; a repository that is there is opened.

    `adopt` probes again and records the store's present endpoint. `single_writer` takes a store that failed the probe,
    on the user's word that never two write at once.

    Raises:
        StoreNotTrusted: the probe failed, or another endpoint is on record; nothing was written.
        NewerFormat, Corrupt: of what is there already; nothing was written.
    """
    record, repository = _read_json(store, layout.STORE), _read_json(store, layout.REPOSITORY)
    if record is None or adopt or (single_writer and not record.get("single_writer")):
        result = probe(store, client=client)
        if not result.trusted and not single_writer:
            raise StoreNotTrusted(
                f"cannot use {store.url} as a repository: of {result.creators} that raced to create one object, "
                f"{', '.join(map(str, result.winners))} were told that they had; choose a store that "
                "creates-if-absent, or pass --single-writer if never two will write at once"
            )
        _record(store, result, single_writer=not result.trusted, known=record is not None, at=clock())
    if repository is None:
        first = json.dumps({"format": FORMAT, "id": secrets.token_hex(16)}) + "\n"
        try:
            store.create(layout.REPOSITORY, first.encode())
        except ObjectExists:
            pass  # founded by another, at the same moment
    founded = open_founded(store)
    if founded.distrust is not None:
        raise StoreNotTrusted(founded.distrust)
    return founded


def open_founded(store: ObjectStore) -> Founded:
    """Open the repository that the store holds.

    Raises:
        RepositoryNotFound, NewerFormat, Corrupt
    """
    repository = _read_json(store, layout.REPOSITORY)
    if repository is None:
        raise RepositoryNotFound(f"{store.url} holds no repository; make one: modelrepo init --repo {store.url}")
    record = _read_json(store, layout.STORE)
    distrust = _distrust(store, record)
    return Founded(
        id=str(repository.get("id", "")),
        store=store if distrust is None else read_only(store, distrust),
        distrust=distrust,
        single_writer=bool(record and record.get("single_writer")),
    )


def read_record(store: ObjectStore) -> Mapping[str, Any] | None:
    """Return what `store.json` says, None where there is none. Raises: NewerFormat, Corrupt."""
    return _read_json(store, layout.STORE)


def read_only(store: ObjectStore, reason: str) -> ObjectStore:
    """Return a store that reads from `store` and refuses every write with `reason`."""
    return _ReadOnlyLocal(store, reason) if isinstance(store, LocalFolders) else _ReadOnly(store, reason)


def _record(store: ObjectStore, result: ProbeResult, *, single_writer: bool, known: bool, at: datetime) -> None:
    record = {
        "format": FORMAT,
        "creates_if_absent": result.trusted,
        "endpoint": store.identity.endpoint,
        "bucket": store.identity.bucket,
        "single_writer": single_writer,
        "probe": {"creators": result.creators, "winners": list(result.winners)},
        "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    data = (json.dumps(record, indent=1) + "\n").encode()
    if known:
        store.replace(layout.STORE, data)
        return
    try:
        store.create(layout.STORE, data)
    except ObjectExists:
        pass  # the other founder's record is judged when the repository is opened


def _distrust(store: ObjectStore, record: Mapping[str, Any] | None) -> str | None:
    if record is None:
        return (
            f"{store.url} is read-only for us: no {layout.STORE} says that it creates-if-absent; "
            f"run: modelrepo init --adopt --repo {store.url}"
        )
    known = StoreIdentity(str(record.get("endpoint", "")), str(record.get("bucket", "")))
    if known != store.identity:
        return (
            f"{store.url} is read-only for us: {layout.STORE} was written for bucket {known.bucket!r} at "
            f"{known.endpoint!r}, and this is bucket {store.identity.bucket!r} at {store.identity.endpoint!r}; if "
            f"they are the same store, or this one is now the only one in use, run: "
            f"modelrepo init --adopt --repo {store.url}"
        )
    if not record.get("creates_if_absent") and not record.get("single_writer"):
        return (
            f"{store.url} is read-only for us: it failed the probe for create-if-absent; "
            f"run: modelrepo init --adopt --repo {store.url}"
        )
    return None


def _read_json(store: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        data = store.read(key)
    except ObjectNotFound:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{key} in {store.url} is not JSON: {error}; {_MENDS[key]}", path=key) from error
    if not isinstance(document, dict):
        raise Corrupt(f"{key} in {store.url} is no JSON object; {_MENDS[key]}", path=key)
    check_format(document, f"{key} in {store.url}")
    return document


class _ReadOnly:
    def __init__(self, inner: ObjectStore, reason: str) -> None:
        self._inner, self._reason = inner, reason
        self.url = inner.url
        self.read, self.read_range, self.list, self.stat = inner.read, inner.read_range, inner.list, inner.stat
        if isinstance(inner, ReadsInPieces):
            self.read_pieces = inner.read_pieces

    @property
    def ability(self) -> StoreAbility:
        return self._inner.ability

    @property
    def identity(self) -> StoreIdentity:
        return self._inner.identity

    def create(self, key: str, _data: bytes, /) -> None:
        self._refuse("create", key)

    def replace(self, key: str, _data: bytes, /, *, if_etag: str | None = None) -> None:  # noqa: ARG002
        self._refuse("replace", key)

    def delete(self, key: str) -> None:
        self._refuse("delete", key)

    def _refuse(self, verb: str, key: str) -> NoReturn:
        raise StoreNotTrusted(f"cannot {verb} {key}: {self._reason}")


class _ReadOnlyLocal(_ReadOnly):
    def locked(self, folder: str) -> AbstractContextManager[None]:
        self._refuse("lock", folder)

    def exchange(self, key: str, _data: bytes, /) -> bytes | None:
        self._refuse("replace", key)
