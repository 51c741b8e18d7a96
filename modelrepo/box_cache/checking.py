"""Look at every byte of the box's version cache once more, and take out what rotted, so that it is fetched again."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelrepo.box_cache.cache_folder import CacheFolder, Ready, content_key, read_manifest
from modelrepo.box_cache.eviction import Room
from modelrepo.box_cache.inventory import Item, Kind
from modelrepo.fetching.disk import Disk
from modelrepo.holds import holders_of, take, try_take
from modelrepo.progress import Progress
from modelrepo.versions.manifest import FileRecord
from modelrepo.versions.paths import inside
from modelrepo.window import Window

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalProblem:
    """Something on this box that is not what it should be, and the digests of the versions that have it."""

    path: Path
    message: str
    versions: tuple[str, ...] = ()
    content: bool = False
    """It is a file that versions share."""

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


def verify_box(
    cache: Path, *, progress: Progress | None = None, stop: Callable[[], bool] | None = None
) -> list[LocalProblem]:
    """Hash every code and checkpoint file in a cache; returns what is damaged, missing or should not be there.

    Versions stay in use meanwhile, and may be evicted: what went with its version is no problem.

    Raises: Stopped.
    """
    looking = _Looking(CacheFolder(cache.absolute()), progress)
    looking.find(stop)
    with Window(stop=stop) as window:
        for look in looking.looks:
            window.submit(BUFFER_BYTES, looking.look, look)
    return sorted(looking.problems, key=lambda problem: str(problem.path))


def remove_broken(cache: Path, problems: Iterable[LocalProblem], *, disk: Disk | None = None) -> list[str]:
    """Remove the versions and files that `verify_box` found broken; the next fetch brings them again.

    Returns a line for each version that stays, since a process uses it.
    """
    folder, disk = CacheFolder(cache.absolute()), disk or Disk()
    room, kept = Room(folder, disk), dict[str, str]()
    problems = list(problems)
    if not problems:
        return []
    for path in (folder.locks, folder.holds):
        path.mkdir(parents=True, exist_ok=True)
    with take(folder.eviction_lock, shared=False):
        for digest in sorted({digest for problem in problems for digest in problem.versions}):
            hold = try_take(folder.hold(digest), shared=False)
            if hold is None:
                pids = ", ".join(map(str, holders_of(folder.hold(digest)))) or "unknown"
                kept[digest] = f"version {digest[:12]} is used by pid {pids}; end it, and run this again"
                continue
            with hold:
                room.remove(Item(Kind.VERSION, digest, folder.version(digest)))
        for problem in problems:
            if problem.content and not kept.keys() & set(problem.versions):
                disk.remove(problem.path)
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class _Look:
    """A file that is there, and what it should be; `record` None is a content that nobody describes."""

    path: Path
    record: FileRecord | None
    versions: tuple[str, ...]
    content: bool


class _Looking:
    def __init__(self, folder: CacheFolder, progress: Progress | None) -> None:
        self._folder, self._progress = folder, progress
        self.looks: list[_Look] = []
        self.problems: list[LocalProblem] = []
        self._described: dict[str, FileRecord] = {}
        self._having: dict[str, set[str]] = {}
        self._total = self._done = 0
        self._guard = threading.Lock()

    def find(self, stop: Callable[[], bool] | None) -> None:
        """List what is to be hashed; what is too much is a problem at once."""
        folder = self._folder
        for path in sorted(folder.versions.glob("*")):
            folder.holds.mkdir(parents=True, exist_ok=True)
            with take(folder.hold(path.name), shared=True, stop=stop):
                self._version(path)
        for path in sorted(folder.objects.glob("*/*")):
            versions = tuple(sorted(self._having.get(path.name, ())))
            self._add(_Look(path, self._described.get(path.name), versions, True))

    def look(self, look: _Look) -> None:
        """Hash one file against its chunks; a content that nobody describes against its name."""
        try:
            found = self._differs(look)
        except FileNotFoundError:
            there = any(self._folder.ready(digest).exists() for digest in look.versions)
            found = "is missing" if there and not look.path.exists() else None  # else it was evicted meanwhile
        except OSError as error:
            found = f"cannot be read: {error.strerror}"
        if found is not None:
            with self._guard:
                self.problems.append(LocalProblem(look.path, found, look.versions, look.content))

    def _version(self, path: Path) -> None:
        folder, digest = self._folder, path.name
        ready, manifest = Ready.read(folder.ready(digest)), read_manifest(folder.manifest(digest))
        if manifest is not None:
            self._described |= {content_key(one): one for one in manifest.files()}
        if ready is None:
            return  # not said to be whole
        if manifest is None or hashlib.sha256(folder.manifest(digest).read_bytes()).hexdigest() != ready.manifest:
            problem = "is missing, or not what READY says: nothing tells what this version should be"
            self.problems.append(LocalProblem(folder.manifest(digest), problem, (digest,)))
            return
        self._tree(path / "code", {one.path: one for one in manifest.code}, digest)
        for name in sorted(ready.checkpoints & manifest.checkpoints.keys()):
            records = {one.path: one for one in manifest.checkpoints[name].files}
            self._tree(path / "checkpoints" / name, records, digest)

    def _tree(self, folder: Path, records: dict[str, FileRecord], digest: str) -> None:
        """Compare a folder of a version with its records. Its links into objects/ are looked at there, once for all."""
        for path, record in records.items():
            file = inside(folder, path)
            key = content_key(record)
            if _is_same(file, self._folder.content(key)):
                self._having.setdefault(key, set()).add(digest)
            else:
                self._add(_Look(file, record, (digest,), False))
        known = {inside(folder, path) for path in records}
        for file in _files(folder):
            if file not in known:
                self.problems.append(LocalProblem(file, "does not belong to the version", (digest,)))

    def _add(self, look: _Look) -> None:
        self.looks.append(look)
        self._total += look.record.size_bytes if look.record is not None else 0

    def _differs(self, look: _Look) -> str | None:
        status = look.path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        record = look.record
        if record is None:
            return self._undescribed(look.path)
        if status.st_size != record.size_bytes:
            return f"has {status.st_size} bytes instead of {record.size_bytes}"
        with look.path.open("rb", buffering=0) as stream:
            for chunk in record.chunks:
                if self._hash(stream.readinto, chunk.size_bytes) != chunk.sha256:
                    return f"holds other bytes than chunk sha256:{chunk.sha256}"
        return None

    def _undescribed(self, path: Path) -> str | None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        return None if found == path.name else "is what no version here describes, so nothing tells whether it is whole"

    def _hash(self, readinto: Callable[[memoryview], int | None], size_bytes: int) -> str:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(min(BUFFER_BYTES, size_bytes)))
        left = size_bytes
        while left:
            count = readinto(buffer[: min(left, len(buffer))])
            if not count:
                break
            digest.update(buffer[:count])
            left -= count
            self._tell(count)
        return digest.hexdigest()

    def _tell(self, size_bytes: int) -> None:
        if self._progress is not None:
            with self._guard:
                self._done += size_bytes
                self._progress("verify", self._done, self._total)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) and not one.is_symlink()
    except OSError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path
