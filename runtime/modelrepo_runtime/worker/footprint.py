"""How much memory a version takes: declared by its author, then learnt from the children that ran it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelrepo.contract.spec import StageSpec


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


def expected(promised: Footprint, learnt: Footprint | None, neighbour: Footprint | None) -> Footprint:
    """Expect the larger of what is promised and what was seen; of a version never seen, what its neighbour takes.

    `neighbour` is the version of the same model that serves now.
    """
    seen = learnt or neighbour
    if seen is None:
        return promised
    seen_as = "learnt on this box" if learnt else "taken from the version that serves"
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
    """The largest footprint seen of each version digest on this box, since the worker started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, Footprint] = {}

    def see(self, digest: str, host_bytes: int | None, device_bytes: int | None) -> None:
        with self._lock:
            known = self._seen.get(digest, Footprint())
            host, device = _larger(known.host_bytes, host_bytes), _larger(known.device_bytes, device_bytes)
            self._seen[digest] = Footprint(host, device, "learnt on this box")

    def of(self, digest: str) -> Footprint | None:
        with self._lock:
            return self._seen.get(digest)

    def all(self) -> Mapping[str, Footprint]:
        with self._lock:
            return dict(self._seen)


def _larger(one: int | None, other: int | None) -> int | None:
    known = [size for size in (one, other) if size is not None]
    return max(known, default=None)
