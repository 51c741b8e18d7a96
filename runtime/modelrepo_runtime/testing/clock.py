"""A clock that moves only when told."""

from __future__ import annotations


class FakeClock:
    """Seconds since some epoch; call it to read it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
