"""Read what the kernel says of memory: what is free of the box and our control groups, and who waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelrepo_runtime.memory_limits import MemoryFiles, groups, memory_info
from modelrepo_runtime.worker.memory_pressure import Reading, Room, Stall
from modelrepo_runtime.worker.swap_plan import size_text


def read_pressure(root: Path = Path("/")) -> Reading:
    """Look once. What a file does not say is left out, and named in `missing`.

    Where one of our groups has a limit, it is its processes' waiting that counts, and not that of the whole box: a
    neighbour may be short of memory in a group of his own.
    """
    bounded = [(group, limit) for group in groups(root) if (limit := _bound(group)) is not None]
    rooms = [*_box(root), *_group_rooms(bounded)]
    files = [(group.folder / "memory.pressure", _name(limit)) for group, limit in bounded if group.version == 2]
    found = [(path, place, _stall(path, place)) for path, place in files or [_box_pressure(root)]]
    if files and not any(stall for _, _, stall in found):
        path, place = _box_pressure(root)
        found.append((path, place, _stall(path, place)))
    missing = [str(path) for path, _, stall in found if stall is None]
    if not any(room.place == _BOX for room in rooms):
        missing.append(str(root / "proc/meminfo"))
    return Reading(tuple(rooms), tuple(stall for _, _, stall in found if stall is not None), tuple(missing))


_BOX = "on this box"


def _box(root: Path) -> Iterator[Room]:
    found = memory_info(root)
    if found is not None:
        yield Room(_BOX, *found)


def _group_rooms(bounded: list[tuple[MemoryFiles, int]]) -> Iterator[Room]:
    for group, limit in bounded:
        used = group.used_bytes
        if used is not None:
            free = max(0, limit - max(0, used - group.cache_bytes))
            yield Room(f"in {_name(limit)}", free, limit)


def _bound(group: MemoryFiles) -> int | None:
    """Return what the group may have before the kernel slows it down or ends somebody."""
    bounds = [bound for bound in (group.limit_bytes, group.high_bytes) if bound is not None]
    return min(bounds, default=None)


def _name(limit: int) -> str:
    return f"the control group's {size_text(limit)}"


def _box_pressure(root: Path) -> tuple[Path, str]:
    return root / "proc/pressure/memory", _BOX


def _stall(path: Path, place: str) -> Stall | None:
    """Read lines such as `some avg10=0.12 avg60=..`; None where the kernel does not say."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        averages = {words[0]: float(words[1].removeprefix("avg10=")) for words in lines if len(words) > 1}
    except (OSError, ValueError):
        return None
    if "some" not in averages:
        return None
    where = place if place == _BOX else f"in {place}"
    return Stall(where, averages["some"], averages.get("full", 0.0))
