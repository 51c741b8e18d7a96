"""The box's pool of checkpoint files in memory: verified once, and shared by every process that loads them.

`place.py` says what lies where, `stock.py` decides, `filling.py` reads and hashes, `entry_files.py` locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import NoSpace
from modelrepo.fetching.disk import human
from modelrepo.holds import Hold, take
from modelrepo_runtime.pool import entry_files
from modelrepo_runtime.pool.entry_files import Attached
from modelrepo_runtime.pool.filling import Content, Filling
from modelrepo_runtime.pool.headroom import measure, total_bytes
from modelrepo_runtime.pool.memory_node import MemoryNode
from modelrepo_runtime.pool.place import Place
from modelrepo_runtime.pool.reading import ColdFile
from modelrepo_runtime.pool.stock import MARGIN_BYTES, Headroom, Item, Lack, Stock, choose, lack

DEFAULT_SHARE = 0.5
"""Of what the tmpfs, the box and our control groups could give: the other half is for the processes that compute."""
_TRIES = 3
_LOOK_AGAIN_S = 0.01
_FULL = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class PoolReport:
    """How a pool stands; bytes."""

    folder: str
    limit_bytes: int
    used_bytes: int
    held_bytes: int
    entries: int

    def __str__(self) -> str:
        held = f"{human(self.held_bytes)} in use" if self.held_bytes else "none in use"
        return f"{human(self.used_bytes)} of {human(self.limit_bytes)} in {self.folder}, {held}"


class HostPool:
    """One pool folder; safe to use from several threads and processes at once.

    `limit_bytes` is what it may hold; `margin_bytes` stay free beside it. What goes when room is wanted is what nobody
    has held for longest.

    Raises: Unsuitable, where the folder cannot be a pool.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int | None = None,
        *,
        margin_bytes: int = MARGIN_BYTES,
        node: MemoryNode | None = None,
        headroom: Callable[[], Headroom] | None = None,
    ) -> None:
        self.folder = folder
        self._place = Place(folder)
        self._place.make()
        self.limit_bytes = int(DEFAULT_SHARE * total_bytes(folder)) if limit_bytes is None else limit_bytes
        self._margin_bytes, self._node = margin_bytes, node
        self._headroom = headroom or (lambda: measure(folder, node))
        self._guard = threading.Lock()

    def attach(self, content: Content) -> Attached | None:
        """Hold an entry that is here; None where it is not. One that was changed since it was sealed is taken out."""
        path = self._place.entries / content.key
        try:
            return entry_files.attach(path, content.key, content.size_bytes)
        except entry_files.Damaged:
            self._retire(path)
            return None

    def bring(
        self,
        content: Content,
        source: Path,
        stop: Callable[[], bool] | None = None,
        *,
        hold_back: Callable[[], str | None] = lambda: None,
    ) -> Attached:
        """Hold an entry, filled from `source` where it is not here yet; what others fill is waited for.

        `hold_back()`: why no more memory should be taken, asked before each step.

        Raises:
            NoSpace: there is no room for it, even without what nobody uses; the message has the sizes.
            Corrupt: the source is not what the manifest says; the pool never holds it.
            Stopped: `stop()` said so.
        """
        attached = self.attach(content)
        for _ in range(_TRIES):
            if attached is not None:
                return attached
            incoming = self._place.incoming / content.key
            with take(incoming, shared=False, stop=stop, what=f"another process filled {incoming}") as hold:
                attached = self.attach(content)
                if attached is not None:
                    incoming.unlink(missing_ok=True)
                    continue
                try:
                    self._fill(content, source, hold, stop, hold_back)
                except BaseException:
                    incoming.unlink(missing_ok=True)
                    raise
                # Nobody may take it out before we hold it: a share of the filler's lock, then one of our own.
                fcntl.flock(hold.fileno(), fcntl.LOCK_SH)
                attached = self.attach(content)
        if attached is None:
            raise NoSpace(f"{source} was taken out of the pool {self.folder} as soon as it was filled, {_TRIES} times")
        return attached

    def shrink(self, size_bytes: int) -> int:
        """Give memory back, least recently used first; returns how much, less where the rest is in use."""
        with self._locked():
            return self._evict(choose(self._stock().items, size_bytes, at_best=True) or ())

    def relieve(self, size_bytes: int = 0) -> int:
        """Give back what keeps so much, and the margin, from being free; returns how much. Cheap where it is free."""
        missing = size_bytes + self._margin_bytes - self._headroom().least[1]
        return self.shrink(missing) if missing > 0 else 0

    def report(self) -> PoolReport:
        """Say how it stands; waits for nobody."""
        stock = self._stock()
        return PoolReport(str(self.folder), self.limit_bytes, stock.used_bytes, stock.held_bytes, len(stock.items))

    def evictable_bytes(self) -> int:
        """Return what `shrink` could give back now; waits for nobody."""
        return self._stock().evictable_bytes

    def _fill(
        self,
        content: Content,
        source: Path,
        hold: Hold,
        stop: Callable[[], bool] | None,
        hold_back: Callable[[], str | None],
    ) -> None:
        target = hold.fileno()
        os.ftruncate(target, 0)  # what a dead one has left; nobody maps what has no entry's name
        with self._locked(stop):
            self._make_room(content, lambda stock: self._lack(content.size_bytes, stock))
            os.ftruncate(target, content.size_bytes)  # the promise: a size without memory

        def reserve(start: int, size_bytes: int) -> None:
            why = hold_back()
            if why is not None:
                raise NoSpace(f"no room for {human(content.size_bytes)} in the pool {self.folder}: {why}")
            with self._locked(stop):
                self._make_room(content, lambda _: self._lack_now(size_bytes))
                with _full_said(content, self.folder):
                    os.posix_fallocate(target, start, size_bytes)

        with ColdFile(source) as cold:
            Filling(content, cold, target, reserve, stop=stop, node=self._node).run()
        entry_files.seal(target, content.key)
        hold.path.rename(self._place.entries / content.key)

    def _lack(self, size_bytes: int, stock: Stock) -> Lack | None:
        return lack(size_bytes, stock, self._headroom(), self._margin_bytes, self.limit_bytes)

    def _lack_now(self, size_bytes: int) -> Lack | None:
        """Look again before a step of what was promised: others take memory without asking the pool."""
        return lack(size_bytes, Stock(), self._headroom(), self._margin_bytes)

    def _make_room(self, content: Content, lacking: Callable[[Stock], Lack | None]) -> None:
        """Evict until nothing is lacking. Raises: NoSpace, with sizes."""
        for _ in range(_TRIES):
            stock = self._stock()
            missing = lacking(stock)
            if missing is None:
                return
            chosen = choose(stock.items, missing.size_bytes)
            if chosen is None:
                time.sleep(_LOOK_AGAIN_S)  # who only looks whether an entry is free seems to hold it meanwhile
            else:
                self._evict(chosen)
        held = f"; {human(stock.held_bytes)} of the pool are in use" if stock.held_bytes else ""
        where = missing.where if missing is not None else ""
        raise NoSpace(f"no room for {human(content.size_bytes)} in the pool {self.folder}: {where}{held}")

    def _stock(self) -> Stock:
        """Look at what lies there; what the dead have left goes."""
        items, leaving, promised, unwritten = [], 0, 0, 0
        for path in _files(self._place.entries):
            with suppress(FileNotFoundError):
                found = path.stat()
                items.append(Item(path.name, found.st_blocks * 512, found.st_atime_ns, not entry_files.is_free(path)))
        for path in _files(self._place.leaving):
            with suppress(FileNotFoundError):
                leaving += 0 if entry_files.remove_free(path) else path.stat().st_blocks * 512
        for path in _files(self._place.incoming):
            with suppress(FileNotFoundError):
                if not entry_files.remove_dead(path):
                    found = path.stat()
                    promised += found.st_size
                    unwritten += max(0, found.st_size - found.st_blocks * 512)
        return Stock(tuple(items), leaving, promised, unwritten)

    def _evict(self, items: Iterable[Item]) -> int:
        return sum(item.size_bytes for item in items if entry_files.remove_free(self._place.entries / item.key))

    def _retire(self, path: Path) -> None:
        """Take a damaged entry out; its memory counts until its last map is gone."""
        with self._locked(), suppress(FileNotFoundError):
            if path.is_symlink():
                path.unlink()
            else:
                path.rename(self._place.leaving / f"{path.name}.{secrets.token_hex(4)}")
            self._stock()

    @contextmanager
    def _locked(self, stop: Callable[[], bool] | None = None) -> Iterator[None]:
        with self._guard, take(self._place.lock, shared=False, stop=stop, what="another process reserved memory"):
            yield


@contextmanager
def _full_said(content: Content, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpace(
            f"no room for {human(content.size_bytes)} in the pool {folder}: its tmpfs is full; "
            "somebody else filled it meanwhile"
        ) from None


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        return [Path(entry.path) for entry in found]
