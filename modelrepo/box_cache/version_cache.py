"""The box's version cache: verified, read-only copies of versions, shared by every worker and command on the box.

`cache_folder.py` says where what lies, `arrival.py` brings it, `eviction.py` takes it away, `checking.py` looks at it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from modelrepo.box_cache.arrival import Arrival
from modelrepo.box_cache.cache_folder import CacheFolder, Ready, default_cache_size
from modelrepo.box_cache.checking import LocalProblem, verify_box
from modelrepo.box_cache.eviction import Need, Room
from modelrepo.errors import NoSpace
from modelrepo.fetching.disk import Disk, full_disk_named
from modelrepo.holds import Hold, take
from modelrepo.progress import Progress
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.version import LocalVersion, Version

T = TypeVar("T")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_ENVIRONMENT_BYTES, _ENVIRONMENT_FILES = 12 << 30, 60_000  # torch with CUDA, and its wheels in uv's cache
_FIRST_FILES = 16  # what a fetch makes before it knows what it needs


class VersionCache:
    """Fetches versions into `cache`; safe to use from several threads and processes at once.

    `limit_bytes` is what the cache may hold, environments included; MODELREPO_CACHE_SIZE unless given, else the disk.
    What goes when it is full is what nobody has held for longest.
    """

    def __init__(
        self, cache: Path, store: ObjectStore, *, limit_bytes: int | None = None, disk: Disk | None = None
    ) -> None:
        self.cache = cache.absolute()
        self._folder = CacheFolder(self.cache)
        self._store = store
        self._disk = disk or Disk()
        limit_bytes = default_cache_size() if limit_bytes is None else limit_bytes
        self.room = Room(self._folder, self._disk, limit_bytes)

    def fetch(
        self,
        version: Version,
        *,
        checkpoints: Collection[str] | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> LocalVersion:
        """Bring a version to this box, with the named checkpoints (all by default); instant where it is there.

        It and its environment are held, and so not evicted, until `let_go` of what is returned, or until nothing refers
        to that any more.

        Raises:
            Corrupt: bytes in the repository are not what the manifest says.
            NoSpace: it would not fit, or the disk became full; nothing half-written is taken for whole.
            Stopped: `stop()` said so; what was whole is kept for the next try.
            InvalidInput: the version has no such checkpoint.
        """
        names = version.checkpoint_names(checkpoints)
        self._make_folders()
        try:
            return self._fetch(version, names, progress, stop)
        except OSError as error:
            if isinstance(error, NoSpace) or error.errno not in _FULL:
                raise
        # Somebody else's bytes filled the disk meanwhile. What is unused makes room, once.
        size = version.manifest.size_bytes
        with full_disk_named(self._disk, self.cache, what=str(version), size_bytes=size):
            self.room.make(Need(str(version), files=_FIRST_FILES))
            return self._fetch(version, names, progress, stop)

    def ready(self, version: Version) -> frozenset[str] | None:
        """Return the checkpoints of a version that are whole on this box; None where its code is not."""
        ready = Ready.read(self._folder.ready(version.digest))
        return None if ready is None else ready.checkpoints

    def folder(self, version: Version) -> Path:
        """Return where a version lies, or would lie."""
        return self._folder.version(version.digest)

    def hold(self, version: Version, *, stop: Callable[[], bool] | None = None) -> tuple[Hold, ...]:
        """Keep a version and its environment from being evicted, be they here yet or not, while the holds last."""
        self._make_folders()
        what = f"{version} was being evicted"
        names = (version.digest, f"environment-{version.manifest.environment.digest}")
        return tuple(take(self._folder.hold(name), shared=True, stop=stop, what=what) for name in names)

    def make_room(self, size_bytes: int, *, what: str, files: int = 0) -> None:
        """Evict until so much fits beside what is held. Raises: NoSpace, with sizes; nothing was evicted then."""
        self._make_folders()
        self.room.make(Need(what, size_bytes=size_bytes, files=files))

    def with_room(self, build: Callable[[], T], *, what: str) -> T:
        """Call what fills the cache's disk by an amount that nobody knows; where it is full, once more beside less."""
        try:
            return build()
        except NoSpace:
            self._make_folders()
            if not self.room.make(Need(what, size_bytes=_ENVIRONMENT_BYTES, files=_ENVIRONMENT_FILES), at_best=True):
                raise
        return build()

    def tidy(self) -> None:
        """Remove what dead fetches left a day ago, and evict what is beyond the limit, as far as that is unused."""
        self._make_folders()
        self.room.tidy()

    def verify(self, *, progress: Progress | None = None, stop: Callable[[], bool] | None = None) -> list[LocalProblem]:
        """Hash everything in the cache again; `box_check.remove_broken` takes out what it finds."""
        return verify_box(self.cache, progress=progress, stop=stop)

    def _fetch(
        self, version: Version, names: frozenset[str], progress: Progress | None, stop: Callable[[], bool] | None
    ) -> LocalVersion:
        with ExitStack() as undone:
            try:
                holds = tuple(map(undone.enter_context, self.hold(version, stop=stop)))
            except OSError as error:
                if error.errno not in _READ_ONLY or not self._has(version, names):
                    raise
                return self._local(version, names)  # nobody evicts from a folder that nobody may write to
            if not self._has(version, names):
                what = f"another process fetched {version}"
                with take(self._folder.version_lock(version.digest), shared=False, stop=stop, what=what):
                    if not self._has(version, names):  # somebody else may have fetched it meanwhile
                        Arrival(self._folder, self._disk, self._store, self.room, version, names, progress, stop).run()
            undone.pop_all()
        return replace(self._local(version, names), holds=holds)

    def _make_folders(self) -> None:
        for path in (self._folder.locks, self._folder.holds):
            if not path.is_dir():
                self._disk.make_folder(path)

    def _has(self, version: Version, names: frozenset[str]) -> bool:
        ready = self.ready(version)
        return ready is not None and names <= ready

    def _local(self, version: Version, names: Collection[str]) -> LocalVersion:
        folder = self.folder(version)
        paths = {name: version.checkpoint_path(folder, name) for name in sorted(names)}
        return LocalVersion(version, folder, folder / "code", paths)
