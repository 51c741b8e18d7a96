"""How much memory a version takes: declared by its author, then learnt from the children that ran it."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract.spec import StageSpec

LEARNT = "learnt on this box"
# Growth of a figure that is worth a write.
TOLD_SHARE = 0.01
# Versions of which a box remembers what they take.
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one child; None is not known. `source` says in words where the figures come from."""

    host_bytes: int | None = None
    device_bytes: int | None = None
    source: str = "nothing declared or learnt"


def declared(stages: Iterable[StageSpec]) -> Footprint:
    """Take what the author promises: one child runs all stages, so the largest need of any of them."""
    host = [stage.host_memory_bytes for stage in stages if stage.host_memory_bytes is not None]
    device = [stage.gpu_memory_bytes for stage in stages if stage.gpu_memory_bytes is not None]
    if not host and not device:
        return Footprint()
    return Footprint(max(host, default=None), max(device, default=None), "declared in model.yaml")


def unpooled(promised: Footprint, pooled_bytes: int) -> Footprint:
    """Take off what is promised the bytes that lie in the host pool already: they are there, and shared, not taken."""
    if promised.host_bytes is None or not pooled_bytes:
        return promised
    rest = max(0, promised.host_bytes - pooled_bytes)
    return Footprint(rest, promised.device_bytes, f"{promised.source}, without what lies in the pool")


def expected(promised: Footprint, learnt: Footprint | None, neighbour: Footprint | None) -> Footprint:
    """Expect the larger of what is promised and what was seen; of a version never seen, what its neighbour takes.

    `neighbour` is the version of the same model that serves now.
    """
    seen = learnt or neighbour
    if seen is None:
        return promised
    seen_as = LEARNT if learnt else "taken from the version that serves"
    if promised.host_bytes is None and promised.device_bytes is None:
        return Footprint(seen.host_bytes, seen.device_bytes, seen_as)
    if learnt is None:
        host = promised.host_bytes if promised.host_bytes is not None else seen.host_bytes
        device = promised.device_bytes if promised.device_bytes is not None else seen.device_bytes
        return Footprint(host, device, promised.source)
    host = _larger(promised.host_bytes, learnt.host_bytes)
    device = _larger(promised.device_bytes, learnt.device_bytes)
    grown = (host, device) != (promised.host_bytes, promised.device_bytes)
    return Footprint(host, device, seen_as if grown else promised.source)


class Learnt:
    """The largest footprint seen of each version digest on this box; may be shared by threads.

    `kept`: a file in the cache's folder, which all workers of the box read and write, so that a worker that starts
    knows what the one before it learnt. What cannot be read or written there is learnt anew.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._seen: dict[str, Footprint] = dict(_read(kept)) if kept is not None else {}

    def see(self, digest: str, host_bytes: int | None, device_bytes: int | None) -> None:
        """Take in a measurement."""
        with self._lock:
            known = self._seen.get(digest, Footprint())
            found = _both(known, Footprint(host_bytes, device_bytes))
            self._seen[digest] = found
            if self._kept is not None and (
                _has_grown(known.host_bytes, host_bytes) or _has_grown(known.device_bytes, device_bytes)
            ):
                with suppress(OSError):
                    self._seen = _write(self._kept, self._seen, newest=digest)

    def of(self, digest: str) -> Footprint | None:
        with self._lock:
            return self._seen.get(digest)

    def all(self) -> Mapping[str, Footprint]:
        with self._lock:
            return dict(self._seen)


def _has_grown(known: int | None, seen: int | None) -> bool:
    """A file is written where it would say something else, not for every page that a process has more."""
    return seen is not None and seen > (known or 0) * (1 + TOLD_SHARE)


def _read(kept: Path) -> Mapping[str, Footprint]:
    """Read what was learnt, the newest last; nothing where it is absent or no longer what was written."""
    try:
        document = json.loads(kept.read_text(encoding="utf-8"))
        return {
            str(digest): Footprint(_size(entry["host_bytes"]), _size(entry["device_bytes"]), LEARNT)
            for digest, entry in document["footprints"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(kept: Path, seen: Mapping[str, Footprint], *, newest: str) -> dict[str, Footprint]:
    """Write what we and others have seen, whole or not at all; return it. Raises: OSError."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{kept.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = dict(_read(kept))
        both = {
            digest: _both(known.get(digest, Footprint()), seen.get(digest, Footprint())) for digest in {**known, **seen}
        }
        both[newest] = both.pop(newest)
        for digest in list(both)[:-MOST_KEPT]:
            del both[digest]
        figures = {
            digest: {"host_bytes": one.host_bytes, "device_bytes": one.device_bytes} for digest, one in both.items()
        }
        new = kept.parent / f".{kept.name}.{os.getpid()}"
        new.write_text(json.dumps({"footprints": figures}, indent=1) + "\n", encoding="utf-8")
        new.replace(kept)
    return both


def _both(one: Footprint, other: Footprint) -> Footprint:
    host, device = _larger(one.host_bytes, other.host_bytes), _larger(one.device_bytes, other.device_bytes)
    return Footprint(host, device, LEARNT)


def _size(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise TypeError(f"{value!r} is not a size")
    return value


def _larger(one: int | None, other: int | None) -> int | None:
    known = [size for size in (one, other) if size is not None]
    return max(known, default=None)
