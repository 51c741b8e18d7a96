"""The credits of a simulated day: which job holds one, and how many a cluster may still grant for a version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from modelrepo_runtime.queue import credits as dispatch
from modelrepo_runtime.simulation.day import Day
from modelrepo_runtime.simulation.ledger import Ledger

Key = tuple[int, str]
"""(cluster, version) whose credit a job holds."""


class CreditBook:
    """Counts credits, and remembers who holds them."""

    def __init__(self, day: Day, ledger: Ledger) -> None:
        self.taken = dispatch.takes_credits(day.stages)
        """Whether jobs of this day take credits at all."""
        self._day, self._ledger = day, ledger
        self._ratio = dispatch.ratio(day.mean_s(0), day.mean_s(day.gpu_stage))
        self.held: dict[int, Key] = {}
        self._in_flight: Counter[Key] = Counter()
        self._limits: dict[Key, int] = {}

    def version_to_prepare(self, cluster: int, versions: Iterable[str]) -> str | None:
        """Return the version of which most credits are free; None where there is none."""
        best, most = None, 0
        for version in versions:
            free = dispatch.grants(self._limits.get((cluster, version), 0), self._in_flight[cluster, version])
            if free > most:
                best, most = version, free
        return best

    def feed(self, key: Key, slots: int) -> None:
        """Set the limit by the slots that there are to prepare for."""
        self._limits[key] = dispatch.limit(slots, self._ratio)

    def grant(self, job: int, key: Key) -> None:
        """Give a job its first credit, unless it has one; the ledger hears of grants past the limit."""
        if self.taken and job not in self.held:
            over = self._in_flight[key] + 1 - self._limits.get(key, 0)
            self._ledger.overshoot = max(self._ledger.overshoot, over)
            self.enter(job, key)

    def enter(self, job: int, key: Key) -> None:
        """Give a job a credit whatever the limit says."""
        self.held[job] = key
        self._in_flight[key] += 1
        name = self._day.clusters[key[0]].name
        taken = sum(count for (cluster, _), count in self._in_flight.items() if cluster == key[0])
        if taken > self._ledger.most_prepared.get(name, 0):
            self._ledger.most_prepared[name] = taken

    def take_from(self, job: int) -> Key | None:
        """Take the credit that a job holds from it; None where it holds none. `give_back` makes it free."""
        return self.held.pop(job, None)

    def give_back(self, key: Key) -> None:
        """Make a credit free for another job."""
        self._in_flight[key] -= 1
