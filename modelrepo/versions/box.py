"""The box's version cache: verified, read-only copies of versions, shared by every worker and command on the box.

<cache>/versions/<digest>/READY              written last; lists the checkpoints that are whole
<cache>/versions/<digest>/code/              files of their own: code that edits itself hurts one version only
<cache>/versions/<digest>/checkpoints/<name>/   hard links into objects/
<cache>/objects/ab/<content>                 checkpoint files, by content, shared by versions
<cache>/incoming/<digest>/                   what is being fetched; its leftovers are removed by the next holder of
<cache>/locks/<digest>.lock                  flock: the lock of a dead process is free
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from modelrepo.errors import InvalidInput, Stopped
from modelrepo.names import near_names
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.content import Progress
from modelrepo.versions.disk import READ_ONLY, READ_ONLY_EXECUTABLE, Disk, check_space, full_disk_named
from modelrepo.versions.fetching import Fetcher, Target
from modelrepo.versions.manifest import EXECUTABLE, CheckpointRecord, FileRecord, Manifest
from modelrepo.versions.paths import inside
from modelrepo.versions.version import LocalVersion, Version

READY = "READY"
LOCK_POLL_S = 0.05
STOP_POLL_S = 0.5


def default_cache() -> Path:
    """Return the box's cache folder: MODELREPO_CACHE, else the user's own cache folder."""
    chosen = os.environ.get("MODELREPO_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("modelrepo")


class VersionCache:
    """Fetches versions into `cache`; safe to use from several threads and processes at once."""

    def __init__(self, cache: Path, store: ObjectStore, *, disk: Disk | None = None) -> None:
        self.cache = cache.absolute()
        self._store = store
        self._disk = disk or Disk()

    def fetch(
        self,
        version: Version,
        *,
        checkpoints: Collection[str] | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> LocalVersion:
        """Bring a version to this box, with the named checkpoints (all by default); instant where it is there.

        Raises:
            Corrupt: bytes in the repository are not what the manifest says.
            NoSpace: it would not fit, or the disk became full; nothing half-written is taken for whole.
            Stopped: `stop()` said so; files that were whole are kept for the next try.
            InvalidInput: the version has no such checkpoint.
        """
        names = checkpoint_names(version, checkpoints)
        ready = self.ready(version)
        if ready is None or not names <= ready:
            with self._locked(version.digest, stop):
                ready = self.ready(version)  # somebody else may have fetched it meanwhile
                _Fetch(self, version, names, progress, stop).run(ready)
        return self._local(version, names)

    def ready(self, version: Version) -> frozenset[str] | None:
        """Return the checkpoints of a version that are whole on this box; None where its code is not."""
        try:
            record = json.loads((self.folder(version) / READY).read_bytes())
            return frozenset(record["checkpoints"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def folder(self, version: Version) -> Path:
        """Return where a version lies, or would lie."""
        return self.cache / "versions" / version.digest

    def _local(self, version: Version, names: Collection[str]) -> LocalVersion:
        folder = self.folder(version)
        paths = {name: checkpoint_path(folder, version.manifest, name) for name in sorted(names)}
        return LocalVersion(version, folder, folder / "code", paths)

    @contextmanager
    def _locked(self, digest: str, stop: Callable[[], bool] | None) -> Iterator[None]:
        locks = self.cache / "locks"
        self._disk.make_folder(locks)
        lock = FileLock(locks / f"{digest}.lock", poll_interval=LOCK_POLL_S)
        while True:
            try:
                lock.acquire(timeout=STOP_POLL_S)
                break
            except Timeout:
                if stop is not None and stop():
                    raise Stopped("stopped while another process fetched the same version") from None
        try:
            yield
        finally:
            lock.release()


def checkpoint_names(version: Version, wanted: Collection[str] | None) -> frozenset[str]:
    """Return the names of the wanted checkpoints; raises InvalidInput for one that the version lacks."""
    known = version.manifest.checkpoints
    if wanted is None:
        return frozenset(known)
    for name in wanted:
        if name not in known:
            near = near_names(name, known)
            meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
            raise InvalidInput(f"{version} has no checkpoint {name!r}; {meant}")
    return frozenset(wanted)


def checkpoint_path(folder: Path, manifest: Manifest, name: str) -> Path:
    """Return the file or folder that a model sees as a checkpoint."""
    record = manifest.checkpoints[name]
    path = folder / "checkpoints" / name
    return path / record.files[0].path if record.single else path


def content_key(file: FileRecord) -> str:
    """Return the name of a file's bytes in the cache.

    Only what is verified on the way in may name it, and that is the chunks: the digest of a whole file would have to be
    computed once more, or a wrong manifest could give another version's file the wrong bytes.
    """
    if len(file.chunks) == 1:
        return file.chunks[0].sha256
    return hashlib.sha256("".join(f"{chunk.sha256} {chunk.size_bytes}\n" for chunk in file.chunks).encode()).hexdigest()


class _Fetch:
    """One fetch of one version, under its lock."""

    def __init__(
        self,
        cache: VersionCache,
        version: Version,
        names: frozenset[str],
        progress: Progress | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self._root, self._disk, self._store = cache.cache, cache._disk, cache._store
        self._version, self._manifest, self._names = version, version.manifest, names
        self._folder = cache.folder(version)
        self._incoming = self._root / "incoming" / version.digest
        self._progress, self._stop = progress, stop

    def run(self, ready: frozenset[str] | None) -> None:
        disk, missing = self._disk, sorted(self._names - (ready or frozenset()))
        if ready is not None and not missing:
            return
        disk.remove_tree(self._incoming)
        disk.make_folder(self._incoming)
        disk.make_folder(self._folder / "checkpoints")
        contents = self._missing_contents(missing)
        code = self._manifest.code if ready is None else ()
        size = sum(file.size_bytes for file in (*contents.values(), *code))
        links = sum(len(self._manifest.checkpoints[name].files) for name in missing)
        what = str(self._version)
        check_space(disk, self._root, size_bytes=size, files=len(code) + len(contents) + links, what=what)
        fetcher = Fetcher(self._store, disk, what=what, total_bytes=size, progress=self._progress, stop=self._stop)
        with full_disk_named(disk, self._root, what=what, size_bytes=size):
            if ready is None:
                self._place(self._fetch_code(fetcher), self._folder / "code")
            self._fetch_contents(fetcher, contents)
            for name in missing:
                self._place(self._link(name), self._folder / "checkpoints" / name)
            self._mark((ready or frozenset()) | self._names)
        disk.remove_tree(self._incoming)

    def _missing_contents(self, names: Collection[str]) -> dict[str, FileRecord]:
        found: dict[str, FileRecord] = {}
        for name in names:
            for file in self._manifest.checkpoints[name].files:
                key = content_key(file)
                if not self._content(key).exists():
                    found[key] = file
        return found

    def _fetch_code(self, fetcher: Fetcher) -> Path:
        folder = self._incoming / "code"
        self._disk.make_folder(folder)
        targets = [
            Target(file, inside(folder, file.path), READ_ONLY_EXECUTABLE if file.mode == EXECUTABLE else READ_ONLY)
            for file in self._manifest.code
        ]
        for parent in sorted({target.path.parent for target in targets}):
            self._disk.make_folder(parent)
        fetcher.fetch(targets)
        return folder

    def _fetch_contents(self, fetcher: Fetcher, contents: Mapping[str, FileRecord]) -> None:
        def keep(target: Target) -> None:
            self._disk.rename(target.path, self._content(target.path.name))

        folder = self._incoming / "contents"
        self._disk.make_folder(folder)
        for key in contents:
            self._disk.make_folder(self._content(key).parent)
        fetcher.fetch((Target(file, folder / key, READ_ONLY) for key, file in contents.items()), then=keep)

    def _link(self, name: str) -> Path:
        record: CheckpointRecord = self._manifest.checkpoints[name]
        folder = inside(self._incoming / "checkpoints", name)
        self._disk.make_folder(folder)
        paths = {inside(folder, file.path): file for file in record.files}
        for parent in sorted({path.parent for path in paths}):
            self._disk.make_folder(parent)
        for path, file in paths.items():
            self._disk.link(self._content(content_key(file)), path)
        return folder

    def _place(self, built: Path, target: Path) -> None:
        self._disk.sync_tree(built)
        if target.exists():  # placed by a fetch that died before it could say so
            self._disk.remove_tree(target)
        self._disk.rename(built, target)

    def _mark(self, names: frozenset[str]) -> None:
        record = {"format": 1, "version": str(self._version), "checkpoints": sorted(names)}
        draft = self._incoming / READY
        fd = self._disk.create(draft)
        self._disk.write(fd, json.dumps(record).encode(), 0)
        self._disk.seal(fd, READ_ONLY)
        self._disk.rename(draft, self._folder / READY)

    def _content(self, key: str) -> Path:
        return self._root / "objects" / key[:2] / key
