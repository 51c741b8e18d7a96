"""Look through the box's cache, and close the door on whatever may go while it is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack
from pathlib import Path

from modelrepo.box_cache.cache_folder import EVICTED, READY, CacheFolder, Ready, read_sizes
from modelrepo.box_cache.inventory import Inventory, Item, Kind, files_below
from modelrepo.fetching.disk import bytes_on_disk
from modelrepo.holds import holders_of, try_take

SUPPLIES = ("uv", "wheels", "bytecode")


def take_stock(folder: CacheFolder, held: ExitStack, *, ours: Set[str] = frozenset()) -> Inventory:
    """Return what lies in the cache. What nobody holds is held exclusively in `held`: it stays unused until that ends.

    `ours` are contents that must not go. Only who has the eviction lock may do this.
    """
    return _Stocktaking(folder, held, ours).run()


def arrivals(folder: CacheFolder) -> Iterator[str]:
    """Yield the digests of versions that are being fetched, or were when their fetch died."""
    for path in _entries(folder.arriving):
        if path != folder.partials and not path.name.startswith(EVICTED):
            yield path.name


class _Stocktaking:
    def __init__(self, folder: CacheFolder, held: ExitStack, ours: Set[str]) -> None:
        self._folder, self._held = folder, held
        self._wanted = set(ours)
        self._sizes: dict[int, int] = {}
        self._names: Counter[int] = Counter()
        self._holders: dict[str, tuple[int, ...] | None] = {}

    def run(self) -> Inventory:
        folder = self._folder
        coming = list(arrivals(folder))
        for digest in coming:
            if self._is_held(digest):
                self._wanted.update(read_sizes(folder.wanted(digest)))
        items = [*self._versions(), *self._leftovers(coming), *self._contents(), *self._environments()]
        seen = {"versions", "objects", "incoming", "environments", *SUPPLIES}
        for name in SUPPLIES:
            path = folder.root / name
            kept = self._is_held("supplies") or (name == "uv" and not self._is_uv_idle(path))
            items.append(Item(Kind.SUPPLY, name, path, inodes=self._inodes(path), kept=kept))
        for path in _entries(folder.root):
            if path.name not in seen:
                self._inodes(path)
        return Inventory(items, self._sizes, self._names)

    def _versions(self) -> Iterator[Item]:
        for path in _entries(self._folder.versions):
            ready = Ready.read(self._folder.ready(path.name))
            used = max(_time(self._folder.hold(path.name)), _time(path / READY))
            held = self._is_held(path.name)
            yield Item(
                Kind.VERSION,
                path.name if ready is None else f"{ready.version} ({path.name[:12]})",
                path,
                used,
                self._inodes(path),
                "" if ready is None else ready.environment,
                self._holders[path.name] or (),
                kept=held,
            )

    def _leftovers(self, coming: Iterable[str]) -> Iterator[Item]:
        folder = self._folder
        for digest in coming:
            path = folder.incoming(digest)
            yield Item(Kind.LEFTOVER, digest, path, _time(path), self._inodes(path), kept=self._is_held(digest))
        for path in _entries(folder.partials):
            kept = path.name.partition(".")[0] in self._wanted
            yield Item(Kind.LEFTOVER, path.name, path, _time(path), self._inodes(path), kept=kept)
        for path in folder.arriving.glob(f"{EVICTED}*"):
            yield Item(Kind.LEFTOVER, path.name, path, 0.0, self._inodes(path))

    def _contents(self) -> Iterator[Item]:
        for shelf in _entries(self._folder.objects):
            self._inodes(shelf, below=False)
            for path in _entries(shelf):
                kept = path.name in self._wanted
                yield Item(Kind.CONTENT, path.name, path, _time(path), self._inodes(path), kept=kept)

    def _environments(self) -> Iterator[Item]:
        for path in _entries(self._folder.environments):
            used = max([_time(self._folder.hold(f"environment-{path.name}")), *map(_time, path.glob("*/*/READY"))])
            kept = self._is_held(f"environment-{path.name}")
            yield Item(Kind.ENVIRONMENT, path.name, path, used, self._inodes(path), kept=kept)

    def _is_held(self, name: str) -> bool:
        if name not in self._holders:
            path = self._folder.hold(name)
            hold = try_take(path, shared=False)
            if hold is not None:
                self._held.enter_context(hold)
            self._holders[name] = holders_of(path) if hold is None else None
        return self._holders[name] is not None

    def _is_uv_idle(self, cache: Path) -> bool:
        if not cache.exists():
            return True
        lock = try_take(cache / ".lock", shared=False)  # uv's own: every uv at work shares it
        if lock is not None:
            self._held.enter_context(lock)
        return lock is not None

    def _inodes(self, path: Path, *, below: bool = True) -> tuple[int, ...]:
        found = []
        for one in files_below(path) if below else (path.lstat(),):
            self._sizes[one.st_ino] = bytes_on_disk(one)
            self._names[one.st_ino] += 1
            found.append(one.st_ino)
        return tuple(found)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _time(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
