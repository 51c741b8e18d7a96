"""Make room in the box's cache before bytes come: whatever nobody uses goes, least recently used first."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelrepo.box_cache.cache_folder import EVICTED, CacheFolder, read_sizes, write_sizes
from modelrepo.box_cache.inventory import Inventory, Item, Kind, Shortage, choose, files_below
from modelrepo.box_cache.stocktaking import arrivals, take_stock
from modelrepo.errors import NoSpace
from modelrepo.fetching.disk import SPARE_BYTES, Disk, bytes_on_disk, human
from modelrepo.holds import take, try_take

LEFTOVERS_KEPT_S = 86_400.0  # a fetch that died is tried again within minutes, or not at all


@dataclass(frozen=True, slots=True)
class Need:
    """What is about to come: `contents` by key with their sizes, and beside them so many bytes and files."""

    what: str
    digest: str = ""
    contents: Mapping[str, int] | None = None
    size_bytes: int = 0
    files: int = 0


class Room:
    """The room of one cache. `limit_bytes` is what it may hold; None is the whole disk."""

    def __init__(self, folder: CacheFolder, disk: Disk, limit_bytes: int | None = None) -> None:
        self._folder, self._disk, self.limit_bytes = folder, disk, limit_bytes

    def admit(self, need: Need, *, stop: Callable[[], bool] | None = None) -> None:
        """Make room for a fetch, and see to it that no other takes it, nor evicts what this one wants.

        The caller holds the version, and that is what keeps the room his.

        Raises:
            NoSpace: with sizes, and who holds what would have to go; nothing was evicted then.
        """
        folder = self._folder
        with self._alone(stop):
            contents = need.contents or {}
            missing = {key: size for key, size in contents.items() if not folder.content(key).exists()}
            size = need.size_bytes + sum(missing.values())
            coming = size - _arrived(folder, missing)
            shelves = {shelf for key in missing if not (shelf := folder.content(key).parent).exists()}
            files = need.files + len(missing) + len(shelves)
            self._make(Need(need.what, need.digest, contents, size, files), coming if size else 0)
            write_sizes(folder.wanted(need.digest), contents)

    def make(self, need: Need, *, at_best: bool = False) -> bool:
        """Make room for something else that comes to the cache's disk; returns whether anything was evicted for it.

        With `at_best` whatever may go goes where that is not enough.

        Raises:
            NoSpace: it would not fit, and nothing was evicted; never with `at_best`.
        """
        with self._alone(None):
            return self._make(need, need.size_bytes, at_best=at_best)

    def tidy(self) -> None:
        """Remove what dead fetches and evictions left a day ago, and come back below the limit as far as that goes."""
        with self._alone(None):
            if self._leftovers_due():
                with ExitStack() as held:
                    stock = take_stock(self._folder, held)
                    old = time.time() - LEFTOVERS_KEPT_S
                    due = [item for item in stock.items if item.kind is Kind.LEFTOVER and item.last_used < old]
                    self._evict([item for item in due if not item.kept])
            self._make(Need("nothing"), 0, at_best=True)
            self._forget()

    def remove(self, item: Item) -> None:
        """Evict one thing; the caller holds it exclusively. Cut short at any point, nothing half is taken for whole."""
        self._evict([item])

    @contextmanager
    def _alone(self, stop: Callable[[], bool] | None) -> Iterator[None]:
        what = "another process made room in the cache"
        with take(self._folder.eviction_lock, shared=False, stop=stop, what=what):
            yield

    def _make(self, need: Need, coming_bytes: int, *, at_best: bool = False) -> bool:
        free_bytes, free_files = self._disk.free(self._folder.root)
        promised = self._promised(need.digest)
        short_bytes = coming_bytes + promised + SPARE_BYTES - free_bytes if coming_bytes else 0
        short_files = need.files - free_files
        if self.limit_bytes is None and short_bytes <= 0 and short_files <= 0:
            return False
        with ExitStack() as held:
            stock = take_stock(self._folder, held, ours=(need.contents or {}).keys())
            over = 0 if self.limit_bytes is None else stock.size_bytes + promised + coming_bytes - self.limit_bytes
            chosen = choose(stock, Shortage(max(short_bytes, over), short_files), at_best=at_best)
            if chosen is None:
                raise NoSpace(self._refusal(need, stock, over > 0, free_bytes, free_files))
            self._evict(chosen)
            return bool(chosen)

    def _promised(self, but: str) -> int:
        """Return what fetches under way have still to bring."""
        folder, sizes = self._folder, dict[str, int]()
        for digest in arrivals(folder):
            if digest != but and (wanted := read_sizes(folder.wanted(digest))):
                free = try_take(folder.hold(digest), shared=False)
                if free is None:
                    sizes |= wanted
                else:
                    free.release()  # that fetch died
        missing = {key: size for key, size in sizes.items() if not folder.content(key).exists()}
        return sum(missing.values()) - _arrived(folder, missing)

    def _forget(self) -> None:
        """Remove the files of holds on what is not here, such as environments that were never built."""
        folder = self._folder
        for path in folder.holds.iterdir():
            environment = folder.environments / path.name.removeprefix("environment-")
            if not any(one.exists() for one in (environment, folder.version(path.name), folder.incoming(path.name))):
                hold = try_take(path, shared=False)
                if hold is not None:
                    with hold:
                        self._disk.remove(path)

    def _leftovers_due(self) -> bool:
        old = time.time() - LEFTOVERS_KEPT_S
        with contextlib.suppress(OSError):
            for path in (*self._folder.arriving.iterdir(), *self._folder.partials.glob("*")):
                if path.name.startswith(EVICTED) or path.lstat().st_mtime < old:
                    return True
        return False

    def _evict(self, items: Collection[Item]) -> None:
        """Marks of what is whole go first, then contents, and last the versions that say what contents should be."""
        folder, disk = self._folder, self._disk
        whole = [item for item in items if item.kind in (Kind.VERSION, Kind.ENVIRONMENT)]
        for item in whole:
            for ready in item.path.glob("READY" if item.kind is Kind.VERSION else "*/*/READY"):
                self._take_mark(ready)
        contents = [item.path for item in items if item.kind is Kind.CONTENT]
        for path in contents:
            disk.remove(path)
        for shelf in sorted({path.parent for path in contents}):
            disk.sync_folder(shelf)
        for item in items:
            if item.kind is Kind.LEFTOVER:
                disk.remove_tree(item.path) if item.path.is_dir() else disk.remove(item.path)
            elif item.kind is Kind.SUPPLY:
                for path in item.path.glob("*/"):
                    self._bury(path)  # the folder itself stays: it has uv's lock
            elif item.kind is not Kind.CONTENT:
                self._bury(item.path)
        for item in whole:
            name = item.path.name
            if item.kind is Kind.VERSION:
                disk.remove_tree(folder.incoming(name))
                disk.remove(folder.version_lock(name))
            disk.remove(folder.hold(name if item.kind is Kind.VERSION else f"environment-{name}"))

    def _take_mark(self, ready: Path) -> None:
        """Take the mark of a whole thing first, durably: from then on what is left of it is nothing."""
        self._disk.remove(ready)
        self._disk.sync_folder(ready.parent)

    def _bury(self, path: Path) -> None:
        """Take a folder out of its place in one step: no half of it is ever found there."""
        if not path.exists():
            return
        grave = self._folder.arriving / f"{EVICTED}{secrets.token_hex(4)}"
        self._disk.make_folder(grave.parent)
        self._disk.rename(path, grave)
        self._disk.sync_folder(path.parent)
        self._disk.remove_tree(grave)

    def _refusal(self, need: Need, stock: Inventory, limited: bool, free_bytes: int, free_files: int) -> str:
        root = self._folder.root
        if limited and self.limit_bytes is not None:
            problem = (
                f"it needs {human(need.size_bytes)} in {root}, which may hold {human(self.limit_bytes)} (--cache-size) "
                f"and holds {human(stock.size_bytes)}"
            )
        elif need.files > free_files:
            problem = f"it needs {need.files} files on {root}, and {free_files} inodes are free"
        else:
            problem = (
                f"it needs {human(need.size_bytes)} on {root}, and {human(free_bytes)} are free "
                f"({human(SPARE_BYTES)} stay spare)"
            )
        return f"cannot fetch {need.what}: {problem}; {_held(stock, need.digest)}"


def _held(stock: Inventory, ours: str) -> str:
    held = [
        f"{item.name} with {human(stock.size_of(item))} is used by pid {', '.join(map(str, item.holders)) or 'unknown'}"
        for item in stock.items
        if item.kind is Kind.VERSION and item.kept and item.path.name != ours
    ]
    told = f"even without what nobody uses it would not fit ({'; '.join(held)})" if held else "nothing else can go"
    return f"{told}; free some space, raise the limit or choose another folder"


def _arrived(folder: CacheFolder, contents: Collection[str]) -> int:
    """Return what of contents that are being fetched is on the disk already."""
    return sum(
        bytes_on_disk(found)
        for path in folder.partials.glob("*")
        if path.name.partition(".")[0] in contents
        for found in files_below(path)
    )
