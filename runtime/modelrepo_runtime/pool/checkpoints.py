"""A version's checkpoints in the pool: which files they are, and what is said of those that stay on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.box_cache.cache_folder import content_key
from modelrepo.errors import NoSpace, Unsuitable
from modelrepo.versions.manifest import FileRecord
from modelrepo.versions.tensors import is_tensor_file
from modelrepo.versions.version import LocalVersion
from modelrepo_runtime.pool.entry_files import Attached
from modelrepo_runtime.pool.filling import Content
from modelrepo_runtime.pool.host_pool import HostPool, PoolReport
from modelrepo_runtime.pool.memory_node import find_node
from modelrepo_runtime.pool.place import default_folder

NO_POOL = "none"
"""The setting that leaves checkpoints on the disk."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """Checkpoint files of a version that are held in the pool, by where they lie on the disk.

    They stay there until nothing refers to this any more. `problem` says which are read from the disk instead, and why.
    """

    files: Mapping[Path, Attached] = field(default_factory=dict)
    problem: str | None = None

    def entries(self) -> dict[Path, tuple[Path, int, int]]:
        """Return each file's entry, with the size and time of change in nanoseconds by which a child knows it."""
        return {path: (one.path, one.size_bytes, one.mtime_ns) for path, one in self.files.items()}

    def descriptors(self) -> tuple[int, ...]:
        """Return what a child holds on to, so that its entries outlive the worker."""
        return tuple(attached.fileno() for attached in self.files.values())


class CheckpointPool:
    """What a box keeps checkpoints in: a host pool, or the disk cache alone and why."""

    def __init__(self, pool: HostPool | None, problem: str | None = None) -> None:
        self.pool, self.problem = pool, problem
        self.hold_back: Callable[[], str | None] = lambda: None
        """Why nothing more should be filled in now, in words; what is here may be held all the same."""

    @classmethod
    def open(cls, folder: str | None = None, limit_bytes: int | None = None, node: int | None = None) -> CheckpointPool:
        """Open the pool that settings name; `none` is no pool, None the user's own on /dev/shm.

        Raises: InvalidInput, for a memory node that cannot be used, or a folder that was named and cannot be a pool.
        """
        if folder == NO_POOL:
            return cls(None)
        chosen = find_node(node) if node is not None else None
        try:
            return cls(HostPool(Path(folder) if folder else default_folder(), limit_bytes, node=chosen))
        except Unsuitable as error:
            if folder:
                raise
            return cls(None, f"{error}; name a tmpfs with --pool")

    def bring(self, local: LocalVersion, stop: Callable[[], bool] | None = None) -> Pooled:
        """Bring the tensor files of a version's checkpoints into the pool, as far as they fit, and hold them.

        Raises: Corrupt, where one on the disk is damaged; Stopped.
        """
        wanted = list(_tensor_files(local))
        if self.pool is None:
            said = f"checkpoints are read from the disk: {self.problem}" if self.problem and wanted else None
            return Pooled(problem=said)
        held: dict[Path, Attached] = {}
        left: list[str] = []
        for path, record in wanted:
            try:
                held[path] = self.pool.bring(content_of(record), path, stop, hold_back=self.hold_back)
            except NoSpace as error:
                left.append(str(error))
        if not left:
            return Pooled(held)
        return Pooled(held, f"{len(left)} of {len(wanted)} checkpoint files are read from the disk: {left[0]}")

    def report(self) -> PoolReport | None:
        """Say how the pool stands; None where there is none."""
        return None if self.pool is None else self.pool.report()

    def evictable_bytes(self) -> int:
        """Return what the pool could give back now."""
        return 0 if self.pool is None else self.pool.evictable_bytes()

    def relieve(self, size_bytes: int = 0) -> None:
        """Give memory back while less than so much and the margin are free."""
        if self.pool is not None:
            self.pool.relieve(size_bytes)

    def drop_spare(self) -> None:
        """Give back all that nobody holds."""
        if self.pool is not None:
            self.pool.shrink(self.pool.evictable_bytes())

    def shrink(self, size_bytes: int) -> int:
        """Give back so much of what nobody holds, the oldest first; returns how much it was."""
        return 0 if self.pool is None else self.pool.shrink(size_bytes)


def content_of(record: FileRecord) -> Content:
    """Name a file's bytes as the box's cache does: by what is verified, its chunks."""
    return Content(content_key(record), record.size_bytes, record.chunks)


def _tensor_files(local: LocalVersion) -> Iterator[tuple[Path, FileRecord]]:
    for name in local.checkpoints:
        for record in local.version.manifest.checkpoints[name].files:
            if is_tensor_file(record.path) and record.chunks:
                yield local.folder / "checkpoints" / name / record.path, record
