"""A bounded folder of small files that come and go with jobs: known by a key, verified once, held while they are used.

<shelf>/lock             flock: reservations and evictions, one at a time on the box
<shelf>/entries/<key>    whole and verified, 0444; its time of change is a seal, its time of access the last use
<shelf>/incoming/<key>   being filled by who holds its flock; its size is what it was promised
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import Corrupt, NoSpace
from modelrepo.fetching.disk import human
from modelrepo.holds import Hold, take
from modelrepo_runtime.pool import entry_files
from modelrepo_runtime.pool.entry_files import Attached

_TRIES = 3
_FULL = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EDQUOT})
Pieces = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Bytes:
    """What an entry holds. `key` begins with 15 hexadecimal digits; who may share an entry has the same key."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shelf may hold: bytes and files."""

    size_bytes: int
    files: int


class Shelf:
    """Safe to use from several threads and processes at once. What goes when room is wanted was not held for longest.

    `free_bytes` measures what could be taken where it lies, of which `margin_bytes` stay free.
    """

    def __init__(self, folder: Path, limits: Limits, free_bytes: Callable[[], int], margin_bytes: int = 0) -> None:
        self.folder, self.limits = folder, limits
        self._free_bytes, self._margin_bytes = free_bytes, margin_bytes
        self._entries, self._incoming = folder / "entries", folder / "incoming"
        for each in (folder, self._entries, self._incoming):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard = threading.Lock()

    def attach(self, wanted: Bytes) -> Attached | None:
        """Hold an entry that is here; None where it is not. One that was changed since it was sealed is taken out."""
        path = self._entries / wanted.key
        try:
            return entry_files.attach(path, wanted.key, wanted.size_bytes)
        except entry_files.Damaged:
            path.unlink(missing_ok=True)
            return None

    def bring(self, wanted: Bytes, pieces: Pieces) -> Attached:
        """Hold an entry, filled with `pieces` where it is not here yet; what others fill is waited for.

        Raises:
            NoSpace: there is no room for it, even without what nobody uses.
            Corrupt: the pieces are not the bytes that are wanted; the shelf never holds them.
        """
        for _ in range(_TRIES):
            incoming = self._incoming / wanted.key
            with take(incoming, shared=False) as hold:
                attached = self.attach(wanted)
                if attached is not None:
                    incoming.unlink(missing_ok=True)
                    return attached
                try:
                    self._fill(wanted, pieces(), hold)
                except BaseException:
                    incoming.unlink(missing_ok=True)
                    raise
                # Nobody may take it out before we hold it: a share of the filler's lock, then one of our own.
                fcntl.flock(hold.fileno(), fcntl.LOCK_SH)
                attached = self.attach(wanted)
                if attached is not None:
                    return attached
        raise NoSpace(f"sha256:{wanted.sha256} was taken out of {self.folder} as soon as it was there, {_TRIES} times")

    def relieve(self, size_bytes: int = 0) -> None:
        """Give back what keeps so much, and the margin, from being free. Cheap where it is free."""
        missing = size_bytes + self._margin_bytes - self._free_bytes()
        if missing > 0:
            with self._locked():
                self._evict(missing, 0)

    def evictable_bytes(self) -> int:
        """Return what `relieve` could give back now; waits for nobody."""
        return sum(found.st_size for path, found in _files(self._entries) if entry_files.is_free(path))

    def used(self) -> tuple[int, int]:
        """Return files and bytes that lie here, those included that room was taken for."""
        sizes: dict[str, int] = {}
        for folder in (self._incoming, self._entries):  # in the order in which a file goes: none is missed on its way
            sizes |= {path.name: found.st_size for path, found in _files(folder) if found.st_size}
        return len(sizes), sum(sizes.values())

    def _fill(self, wanted: Bytes, pieces: Iterable[bytes], hold: Hold) -> None:
        target = hold.fileno()
        os.ftruncate(target, 0)  # what a dead one has left; nobody maps what has no entry's name
        with self._locked():
            self._make_room(wanted)
            self._allocate(target, wanted.size_bytes)
        digest, size = hashlib.sha256(), 0
        for piece in pieces:
            size += len(piece)
            if size > wanted.size_bytes:
                break
            digest.update(piece)
            _write(target, piece, size - len(piece))
        if size != wanted.size_bytes or digest.hexdigest() != wanted.sha256:
            raise mismatch(wanted, size, digest.hexdigest())
        os.fsync(target)
        entry_files.seal(target, wanted.key)
        hold.path.rename(self._entries / wanted.key)

    def _make_room(self, wanted: Bytes) -> None:
        """Evict until it fits. Raises: NoSpace, with sizes."""
        if wanted.size_bytes <= self.limits.size_bytes:
            for path, _ in _files(self._incoming):
                entry_files.remove_dead(path)
            files, size_bytes = self.used()
            over = size_bytes + wanted.size_bytes - self.limits.size_bytes
            short = wanted.size_bytes + self._margin_bytes - self._free_bytes()
            if self._evict(max(over, short), files + 1 - self.limits.files):
                return
        raise NoSpace(
            f"no room for {human(wanted.size_bytes)} in {self.folder}, which may hold {human(self.limits.size_bytes)}"
            f" in {self.limits.files} files, and is in use"
        )

    def _evict(self, size_bytes: int, files: int) -> bool:
        """Remove so much and so many that nobody holds, least recently used first; False where there was not enough."""
        if size_bytes <= 0 and files <= 0:
            return True
        for path, found in sorted(_files(self._entries), key=lambda entry: (entry[1].st_atime_ns, entry[0].name)):
            if entry_files.remove_free(path):
                size_bytes, files = size_bytes - found.st_size, files - 1
                if size_bytes <= 0 and files <= 0:
                    return True
        return False

    def _allocate(self, target: int, size_bytes: int) -> None:
        try:
            os.posix_fallocate(target, 0, size_bytes)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise NoSpace(f"no room for {human(size_bytes)} in {self.folder}: it is full") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._guard, take(self.folder / "lock", shared=False):
            yield


def mismatch(wanted: Bytes, size_bytes: int, sha256: str) -> Corrupt:
    """Say that bytes which came are not those that were wanted."""
    found = f"{size_bytes} bytes" if size_bytes != wanted.size_bytes else f"sha256:{sha256}"
    expected = f"{wanted.size_bytes} bytes of sha256:{wanted.sha256}"
    return Corrupt(f"its bytes are {found}, and {expected} were named", digest=wanted.sha256)


def _write(target: int, piece: bytes, at: int) -> None:
    left = memoryview(piece)
    while left:
        written = os.pwrite(target, left, at)
        left, at = left[written:], at + written


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as found:
        for entry in found:
            with suppress(FileNotFoundError):
                yield Path(entry.path), entry.stat(follow_symlinks=False)
