"""What modelrepo asks of a store: seven verbs over keys and bytes.

A key is a relative path of `/`-separated segments. Every call may be made from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelrepo.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """One object. `modified` is the store's own clock, epoch seconds; `etag` changes with the bytes."""

    key: str
    size_bytes: int
    etag: str
    modified: float


@dataclass(frozen=True, slots=True)
class StoreAbility:
    """What a store can do, as data.

    `conditional_create`: `create` lets one of many creators win.
    `conditional_replace`: `replace(if_etag=)` compares in the store itself.
    `single_put_limit_bytes`: the largest object that one `create` or conditional `replace` may carry.
    `local`: keys are files of this box (or of a file system that it mounts).
    """

    conditional_create: bool
    conditional_replace: bool
    single_put_limit_bytes: int
    local: bool


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Which store it is, as `store.json` records it; the same on every box that reaches it."""

    endpoint: str
    bucket: str


class ObjectStore(Protocol):
    """A folder of a bucket, or of a disk.

    Every verb raises Unreachable when the store does not answer or answers with a fault, and Forbidden when it refuses
    our credentials; neither ever looks like an empty answer. After Unreachable a write may or may not have happened:
    look again, or repeat it (a repeated `create` of the same bytes succeeds).
    """

    @property
    def url(self) -> str: ...
    @property
    def ability(self) -> StoreAbility: ...
    @property
    def identity(self) -> StoreIdentity: ...

    def read(self, key: str) -> bytes:
        """Return the object's bytes, as the latest finished write left them.

        Raises:
            ObjectNotFound
        """
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return the bytes from `start` on, `length` of them, fewer only where the object ends.

        Raises:
            ObjectNotFound
        """
        ...

    def create(self, key: str, data: bytes) -> None:
        """Create the object whole or not at all; durable on return.

        Of many creators of one key, one wins. An object that is there with the same bytes counts as created.

        Raises:
            ObjectExists: it is there with other bytes.
            NoSpace
        """
        ...

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        """Write the object whole or not at all, whether or not there was one; durable on return.

        With `if_etag`, only over the object that has this etag. Where `ability.conditional_replace` is False the
        comparison is ours, just before the write.

        Raises:
            ObjectChanged: the object has another etag, or is gone.
            NoSpace
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield every object below the folder `prefix` ("" or ending in "/"), sorted by key; never cached."""
        ...

    def delete(self, key: str) -> None:
        """Delete the object; no error where there is none."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """Return size, etag and time of the object.

        Raises:
            ObjectNotFound
        """
        ...


@runtime_checkable
class LocalFolders(Protocol):
    """What a store of local files can do beyond the seven verbs, so that people may edit those files beside us."""

    def locked(self, folder: str) -> AbstractContextManager[None]:
        """Hold the folder's advisory lock, against every process of the box; a killed holder frees it."""
        ...

    def exchange(self, key: str, data: bytes) -> bytes | None:
        """Replace the file and return the bytes that were there at that instant, None where there was none."""
        ...


@runtime_checkable
class TakesOver(Protocol):
    """What a store can do beyond the seven verbs where its server keeps another store too: take an object over."""

    def reaches(self, source: ObjectStore) -> bool:
        """Say whether the server keeps `source` as well, so that `take_over` is worth a try."""
        ...

    def take_over(self, source: ObjectStore, key: str, etag: str) -> bool:
        """Create `key` with the bytes of the same key in `source`, which do not pass through this box.

        True: it was created with the bytes that have this etag in `source`. False: this is not known, because the
        server refused, did not answer, or one of the two has changed; `create` then decides.
        """
        ...


@runtime_checkable
class ReadsInPieces(Protocol):
    """What a store can do beyond the seven verbs where an object need not be held whole to be read."""

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        """Yield the object's bytes from `start` to its end, in small pieces, each valid until the next is asked for.

        A slow reader slows the server down; nothing piles up here.

        Raises:
            ObjectNotFound
        """
        ...


def check_key(key: str) -> str:
    """Return `key`.

    Raises:
        InvalidInput: it could name something outside the store's root.
    """
    if not key or "\\" in key or "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(f"key {key!r} is not allowed: a relative path without empty, '.' or '..' segments is wanted")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`.

    Raises:
        InvalidInput: it is neither "" nor a folder's key with a "/" at its end.
    """
    if prefix:
        if not prefix.endswith("/"):
            raise InvalidInput(f"prefix {prefix!r} is not allowed: it must be empty or end in '/'")
        check_key(prefix[:-1])
    return prefix
