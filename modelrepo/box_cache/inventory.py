"""What lies in the box's cache: what each thing holds on the disk, when it was last used, and whether it may go.

Links make this more than a sum of sizes: a file's bytes come back when the last of its names goes.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """What may be evicted, in the order in which it goes."""

    VERSION = "version"
    LEFTOVER = "leftover of a fetch"
    CONTENT = "content"
    ENVIRONMENT = "environment"
    SUPPLY = "what only a next build of an environment wants"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in the cache. `inodes` are what it has names for, once for each name."""

    kind: Kind
    name: str
    path: Path
    last_used: float = 0.0
    inodes: tuple[int, ...] = ()
    environment: str = ""
    """Of a version: the digest of the environment that it runs in."""
    holders: tuple[int, ...] = ()
    """The processes that use it, as far as they are known."""
    kept: bool = False
    """May not go: somebody uses it, or is about to."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything in the cache. `sizes` are bytes on the disk by inode, `names` how many names each has in the cache."""

    items: Sequence[Item]
    sizes: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    def size_of(self, item: Item) -> int:
        """Return the bytes that an item has names for, those that it shares included."""
        return sum(self.sizes[inode] for inode in set(item.inodes))


@dataclass(frozen=True, slots=True)
class Shortage:
    """How much has to go."""

    size_bytes: int = 0
    inodes: int = 0


def choose(inventory: Inventory, shortage: Shortage, *, at_best: bool = False) -> list[Item] | None:
    """Choose what goes, least recently used first.

    Where everything that may go is not enough, nothing should: None, or with `at_best` all of it.
    Versions and leftovers go first, each version with the contents that nothing else has a name for; then environments
    that no version runs in any more; then what only the next build of an environment would want.
    """
    names = Counter(inventory.names)
    gone: list[Item] = []
    freed_bytes = freed_inodes = 0
    contents = {item.inodes[0]: item for item in inventory.items if item.kind is Kind.CONTENT and item.inodes}
    versions = Counter(item.environment for item in inventory.items if item.kind is Kind.VERSION)

    def is_leaving(item: Item) -> bool:
        orphan = item.kind is Kind.CONTENT and names[item.inodes[0]] == 1  # of a fetch that died
        return not item.kept and (orphan or item.kind in (Kind.VERSION, Kind.LEFTOVER))

    leaving = sorted(filter(is_leaving, inventory.items), key=lambda item: item.last_used)

    def enough() -> bool:
        return freed_bytes >= shortage.size_bytes and freed_inodes >= shortage.inodes

    def go(item: Item) -> None:
        nonlocal freed_bytes, freed_inodes
        gone.append(item)
        for inode in item.inodes:
            names[inode] -= 1
            if names[inode] == 0:
                freed_bytes += inventory.sizes[inode]
                freed_inodes += 1

    for item in leaving:
        if enough():
            return gone
        go(item)
        if item.kind is Kind.VERSION:
            versions[item.environment] -= 1
            for inode in item.inodes:
                orphan = contents.get(inode)
                if orphan is not None and not orphan.kept and names[inode] == 1:
                    go(orphan)
    for kind in (Kind.ENVIRONMENT, Kind.SUPPLY):
        for item in sorted((one for one in inventory.items if one.kind is kind), key=lambda one: one.last_used):
            if enough():
                return gone
            if not item.kept and versions[item.name] <= 0:
                go(item)
    return gone if at_best or enough() else None


def files_below(folder: Path) -> Iterator[os.stat_result]:
    """Yield what a folder holds, itself included; what vanishes meanwhile is left out, and no link followed."""
    try:
        facts = folder.lstat()
    except OSError:
        return
    yield facts
    folders = [folder] if stat.S_ISDIR(facts.st_mode) else []
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    yield found
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
        except OSError:
            continue
