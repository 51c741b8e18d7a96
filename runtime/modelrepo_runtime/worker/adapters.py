"""Adapters of jobs on this box: fetched once, kept by digest in a share of their own, shown to each job by name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from modelrepo.errors import NoSpace
from modelrepo.fetching.disk import SPARE_BYTES
from modelrepo_runtime.jobs import Adapter
from modelrepo_runtime.pool.entry_files import Attached
from modelrepo_runtime.pool.headroom import measure
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.shelf import Bytes, Limits, Shelf, mismatch
from modelrepo_runtime.pool.stock import MARGIN_BYTES
from modelrepo_runtime.supervision.spec import AdapterPath
from modelrepo_runtime.worker.journal import Journal

DEFAULT_SIZE_BYTES = 10 << 30
POOL_SHARE = 8
"""Unless a size is given, this part of what the pool may hold is the most that adapters take of memory."""


class ReadsFiles(Protocol):
    """The part of the JobStore that is asked for adapters."""

    def pieces(self, key: str) -> Iterable[bytes]: ...


class ReadsPublished(Protocol):
    """The part of a repository that is asked for adapters."""

    def read(self, reference: str, sha256: str, size_bytes: int) -> Iterable[bytes]: ...


@dataclass(frozen=True, slots=True)
class KeptAdapter:
    """One adapter as a job sees it. `hold` keeps it where it is; None: it is the attempt's own copy."""

    shown: AdapterPath
    hold: Attached | None


class AdapterCache:
    """What all slots of the box keep adapters in; may be shared by threads and with other workers.

    A tenant is only ever shown bytes that came from itself or that the team has published: whoever knows the digest of
    another tenant's adapter has nothing by it.
    """

    def __init__(
        self, shelves: Sequence[Shelf], files: ReadsFiles, published: ReadsPublished, journal: Journal
    ) -> None:
        """`shelves`: asked in this order; the later ones where the earlier have no room."""
        self._shelves, self._files, self._published, self._journal = shelves, files, published, journal

    def bring(self, adapter: Adapter, folder: Path) -> KeptAdapter:
        """Hold an adapter, fetched where it is not here yet, and show it in `folder` by its name.

        Raises:
            NotFound: it is gone where it should lie. Corrupt: its bytes are not what its digest says.
            Unreachable, OSError
        """
        wanted = Bytes(_key(adapter), adapter.size_bytes, adapter.sha256)
        path = folder / (Path(adapter.name).name or "adapter")
        folder.mkdir(parents=True, exist_ok=True)
        hold = self._hold(wanted, adapter)
        if hold is not None:
            path.symlink_to(hold.path)
        else:
            _copy(wanted, self._pieces(adapter), path)
        return KeptAdapter(AdapterPath(adapter.ref or adapter.name, path, adapter.sha256, adapter.weight), hold)

    def relieve(self, size_bytes: int = 0) -> None:
        """Give memory back while less than so much and the margin are free."""
        for shelf in self._shelves[:-1]:
            shelf.relieve(size_bytes)

    def evictable_bytes(self) -> int:
        """Return what could be given back of memory now."""
        return sum(shelf.evictable_bytes() for shelf in self._shelves[:-1])

    def _hold(self, wanted: Bytes, adapter: Adapter) -> Attached | None:
        for shelf in self._shelves:
            if (found := shelf.attach(wanted)) is not None:
                return found
        for shelf in self._shelves:
            try:
                return shelf.bring(wanted, partial(self._pieces, adapter))
            except NoSpace as error:
                self._journal.say_once(f"adapters {shelf.folder}", "adapter-not-kept", error=error)
        return None

    def _pieces(self, adapter: Adapter) -> Iterable[bytes]:
        if adapter.ref is not None:
            return self._published.read(adapter.ref, adapter.sha256, adapter.size_bytes)
        return self._files.pieces(adapter.key or "")


def open_adapters(
    settings: tuple[int | None, int],
    disk: Path,
    pool: HostPool | None,
    reads: tuple[ReadsFiles, ReadsPublished],
    journal: Journal,
) -> AdapterCache:
    """Open a box's cache: beside the checkpoints in memory where it has a pool, else, and beyond that, on its disk.

    `settings`: the bytes and the files that it may hold; bytes None: what is fit for the place.
    """
    size_bytes, files = settings
    limits = Limits(DEFAULT_SIZE_BYTES if size_bytes is None else size_bytes, files)
    shelves = [Shelf(disk, limits, lambda: shutil.disk_usage(disk).free, SPARE_BYTES)]
    if pool is not None:
        folder = pool.folder / "adapters"
        share = min(limits.size_bytes, pool.limit_bytes // POOL_SHARE) if size_bytes is None else size_bytes
        free: Callable[[], int] = lambda: measure(folder).least[1]  # noqa: E731
        shelves.insert(0, Shelf(folder, Limits(share, files), free, MARGIN_BYTES))
    return AdapterCache(shelves, *reads, journal)


def _key(adapter: Adapter) -> str:
    """Name an adapter's bytes on this box: by owner and digest."""
    return hashlib.sha256(f"{adapter.owner}\0{adapter.sha256}".encode("utf-8", "surrogatepass")).hexdigest()


def _copy(wanted: Bytes, pieces: Iterable[bytes], path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in _up_to(pieces, wanted.size_bytes):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    if size != wanted.size_bytes or digest.hexdigest() != wanted.sha256:
        raise mismatch(wanted, size, digest.hexdigest())


def _up_to(pieces: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Yield pieces until more came than were named."""
    came = 0
    for piece in pieces:
        yield piece
        came += len(piece)
        if came > size_bytes:
            return
