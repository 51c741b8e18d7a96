"""One fetch of one version into the box's cache. Killed at any point, the next one goes on from what is there."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelrepo.box_cache.cache_folder import READY, CacheFolder, Ready, content_key
from modelrepo.box_cache.eviction import Need, Room
from modelrepo.box_cache.single_flight import ContentLocks
from modelrepo.errors import Stopped
from modelrepo.fetching.disk import READ_ONLY, READ_ONLY_EXECUTABLE, Disk
from modelrepo.fetching.fetcher import Fetcher, Target
from modelrepo.holds import POLL_S
from modelrepo.progress import Progress
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import EXECUTABLE, FileRecord
from modelrepo.versions.paths import inside
from modelrepo.versions.version import Version

_RECORDS = (READY, "manifest.json", "wanted.json")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A version that is to come, with the checkpoints `names`. Its lock and a hold on it are the caller's."""

    folder: CacheFolder
    disk: Disk
    store: ObjectStore
    room: Room
    version: Version
    names: frozenset[str]
    progress: Progress | None = None
    stop: Callable[[], bool] | None = None

    def run(self) -> None:
        """Bring what is missing, and mark the version READY with it."""
        folder, disk, digest = self.folder, self.disk, self.version.digest
        before = Ready.read(folder.ready(digest))
        had = before.checkpoints if before else frozenset()
        missing = sorted(name for name in self.names if not (folder.version(digest) / "checkpoints" / name).exists())
        manifest = self.version.manifest
        contents = {content_key(file): file for name in missing for file in manifest.checkpoints[name].files}
        code = () if (folder.version(digest) / "code").exists() else manifest.code
        disk.make_folder(folder.incoming(digest))
        disk.make_folder(folder.partials)
        self._admit(contents, code, missing)
        disk.make_folder(folder.version(digest) / "checkpoints")
        kept = self._keep_manifest()
        fetching = _Fetching(self, contents, code)
        if not (folder.version(digest) / "code").exists():
            self._place(fetching.code(), folder.version(digest) / "code")
        fetching.contents()
        for name in missing:
            self._place(self._link(name), folder.version(digest) / "checkpoints" / name)
        ready = Ready(str(self.version), had | self.names, manifest.environment.digest, kept)
        self._write(READY, ready.to_bytes(), folder.ready(digest))
        disk.remove_tree(folder.incoming(digest))

    def _admit(self, contents: Mapping[str, FileRecord], code: tuple[FileRecord, ...], missing: list[str]) -> None:
        sizes = {key: file.size_bytes for key, file in contents.items()}
        files = [*code, *(file for name in missing for file in self.version.manifest.checkpoints[name].files)]
        folders = len({file.path.rpartition("/")[0] for file in files}) + len(missing)
        size = sum(file.size_bytes for file in code)
        # A link takes an inode on some file systems (tmpfs), and is a copy where there are no more links to give.
        need = Need(str(self.version), self.version.digest, sizes, size, len(files) + folders + len(_RECORDS))
        self.room.admit(need, stop=self.stop)

    def _keep_manifest(self) -> str:
        data = self.version.manifest.to_bytes()
        target = self.folder.manifest(self.version.digest)
        if not target.exists():
            self._write("manifest.json", data, target)
        return hashlib.sha256(data).hexdigest()

    def _link(self, name: str) -> Path:
        disk, record = self.disk, self.version.manifest.checkpoints[name]
        folder = inside(self.folder.incoming(self.version.digest) / "checkpoints", name)
        disk.remove_tree(folder)
        disk.make_folder(folder)
        paths = {inside(folder, file.path): file for file in record.files}
        for parent in sorted({path.parent for path in paths}):
            disk.make_folder(parent)
        for path, file in paths.items():
            disk.link(self.folder.content(content_key(file)), path)
        return folder

    def _place(self, built: Path, target: Path) -> None:
        self.disk.sync_tree(built)
        self.disk.rename(built, target)

    def _write(self, name: str, data: bytes, target: Path) -> None:
        disk, draft = self.disk, self.folder.incoming(self.version.digest) / f"{name}.draft"
        disk.remove(draft)
        fd = disk.create(draft)
        disk.write(fd, data, 0)
        disk.seal(fd, READ_ONLY)
        disk.rename(draft, target)


class _Fetching:
    """The bytes of an arrival."""

    def __init__(self, arrival: Arrival, contents: Mapping[str, FileRecord], code: tuple[FileRecord, ...]) -> None:
        self._arrival, self._contents, self._code = arrival, contents, code
        self._folder, self._disk = arrival.folder, arrival.disk
        missing = [file for key, file in contents.items() if not self._folder.content(key).exists()]
        self._fetcher = Fetcher(
            arrival.store,
            arrival.disk,
            what=str(arrival.version),
            total_bytes=sum(file.size_bytes for file in (*missing, *code)),
            progress=arrival.progress,
            stop=arrival.stop,
        )
        self._guard = threading.Lock()

    def code(self) -> Path:
        incoming = self._folder.incoming(self._arrival.version.digest)
        folder, journals = incoming / "code", incoming / "journals"
        for each in (folder, journals):
            self._disk.make_folder(each)
        targets = [
            Target(
                file,
                inside(folder, file.path),
                READ_ONLY_EXECUTABLE if file.mode == EXECUTABLE else READ_ONLY,
                journals / str(index),
            )
            for index, file in enumerate(self._code)
        ]
        for parent in sorted({target.path.parent for target in targets}):
            self._disk.make_folder(parent)
        self._fetcher.fetch(targets)
        return folder

    def contents(self) -> None:
        """Bring every content that is missing, each by one fetch of this box at a time."""
        left = dict(self._contents)
        for shelf in sorted({self._folder.content(key).parent for key in left}):
            self._disk.make_folder(shelf)
        with ContentLocks(self._folder.contents_lock) as locks:
            while left:
                theirs: dict[str, FileRecord] = {}
                self._fetcher.fetch(self._free(left, theirs, locks), then=lambda target: self._keep(target, locks))
                locks.release_all()  # nobody waits while he has a lock
                left = theirs
                self._wait(next(iter(left), None), locks)

    def _free(
        self, contents: Mapping[str, FileRecord], theirs: dict[str, FileRecord], locks: ContentLocks
    ) -> Iterator[Target]:
        """Yield what no other fetch is bringing; what one is goes to `theirs`."""
        for key, file in contents.items():
            if self._folder.content(key).exists():
                continue
            if not locks.try_take(key):
                theirs[key] = file
            elif self._folder.content(key).exists():  # brought between the two looks
                locks.release(key)
            else:
                yield Target(file, self._folder.partial(key), READ_ONLY, self._folder.partial(f"{key}.journal"))

    def _keep(self, target: Target, locks: ContentLocks) -> None:
        key = target.path.name
        self._disk.rename(target.path, self._folder.content(key))
        locks.release(key)

    def _wait(self, key: str | None, locks: ContentLocks) -> None:
        """Wait until a content has come, or its fetch has died."""
        stop, progress = self._arrival.stop, self._arrival.progress
        if key is not None and progress is not None:
            progress("waiting for another process that fetches the same", 0, None)
        while key is not None and not self._folder.content(key).exists():
            if locks.try_take(key):
                return
            if stop is not None and stop():
                raise Stopped(f"stopped while another process fetched a checkpoint of {self._arrival.version}")
            time.sleep(POLL_S)
