"""The store's own time: ages are differences of its Last-Modified, and no client's clock enters."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.stores.port import ObjectStore


def store_now(store: ObjectStore) -> float:
    """Return what time it is for the store: the Last-Modified of an object that was just created there."""
    key = layout.probe(secrets.token_hex(8), 0)
    store.create(key, key.encode())
    try:
        return store.stat(key).modified
    finally:
        store.delete(key)


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """How long something has taken on this box, sleep of the box included."""

    clock: Clock
    monotonic_s: float
    wall_s: float

    @classmethod
    def start(cls, clock: Clock) -> Stopwatch:
        """Start one."""
        return cls(clock, clock.monotonic(), clock.now())

    @property
    def seconds(self) -> float:
        # A monotonic clock stands still while the box sleeps, and a wall clock may be set back: whichever says more.
        return max(self.clock.monotonic() - self.monotonic_s, self.clock.now() - self.wall_s)
