"""How long jobs run in a slot, and how long their inputs take to come: what it has seen itself."""

from __future__ import annotations

import threading
from typing import TypeVar

from modelrepo_runtime.jobs import Claim

Key = TypeVar("Key")

NEWEST_WEIGHT = 0.3
"""Of the newest figure in the mean: a slot follows a change within a few jobs."""


class Pace:
    """Exponential means; may be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str, str | None], float] = {}
        self._fetches: dict[tuple[str, str], float] = {}

    def ran(self, claim: Claim, seconds: float) -> None:
        """A job ran for so long."""
        with self._lock:
            _mean(self._runs, (claim.model, claim.stage, claim.size), seconds)

    def fetched(self, claim: Claim, seconds: float) -> None:
        """The inputs of a job took so long to come."""
        with self._lock:
            _mean(self._fetches, (claim.model, claim.stage), seconds)

    def fetch_s(self, model: str, stage: str) -> float | None:
        """Return how long the inputs of a next job of this stage may take; None: never seen."""
        with self._lock:
            return self._fetches.get((model, stage))

    def rest_s(self, claim: Claim, elapsed_s: float, fraction: float | None) -> float | None:
        """Return how long a job that runs will still run; None: nobody knows."""
        if fraction is not None and fraction > 0:
            return elapsed_s * (1 - fraction) / fraction
        with self._lock:
            usual = self._runs.get((claim.model, claim.stage, claim.size))
        return None if usual is None else max(0.0, usual - elapsed_s)


def _mean(known: dict[Key, float], key: Key, value: float) -> None:
    known[key] = value if key not in known else known[key] + NEWEST_WEIGHT * (value - known[key])
