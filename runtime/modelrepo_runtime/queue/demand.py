"""What waits for a model, as a box sees it that may serve several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelrepo_runtime.job_memory import ANY_ROOM, MemoryNeed, MemoryRoom
from modelrepo_runtime.queue.reports import QueueReport


@dataclass(frozen=True, slots=True)
class LaneDemand:
    """Jobs that wait for any version of a model, all alike to whoever could take them."""

    on: str
    """cpu or gpu."""
    cluster: str | None
    """The only one whose slots may take them; None: any."""
    avoid: tuple[str, ...]
    """Workers that failed them."""
    waiting: int
    share: float
    """The part of its tier's SLO that the oldest has used."""
    needs: MemoryNeed | None = None
    """The memory that a slot must have for them; None: whatever."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The same, of all lanes that one slot could take jobs from."""

    waiting: int = 0
    share: float = 0.0
    """Of the most urgent of them."""


def lane_demands(report: QueueReport) -> tuple[LaneDemand, ...]:
    """Read from what operators see the lanes that another slot could help; not those of one version, or paused."""
    return tuple(
        LaneDemand(lane.on, lane.cluster, lane.avoid, lane.waiting, lane.share or 0.0, lane.needs)
        for lane in report.lanes
        if lane.waiting and lane.version is None and not lane.paused
    )


@dataclass(frozen=True, slots=True)
class Taker:
    """What of a slot decides which lanes it could take jobs from."""

    kinds: tuple[str, ...]
    """cpu, gpu or both."""
    cluster: str
    worker: str
    room: MemoryRoom = ANY_ROOM

    def takes(self, lane: LaneDemand) -> bool:
        """Tell whether nothing keeps the slot from a lane."""
        return (
            lane.on in self.kinds
            and lane.cluster in (None, self.cluster)
            and self.worker not in lane.avoid
            and (lane.needs is None or lane.needs.met_by(self.room))
        )

    def demand(self, lanes: Iterable[LaneDemand]) -> Demand:
        """Sum up what the slot could take."""
        mine = [lane for lane in lanes if self.takes(lane)]
        return Demand(sum(lane.waiting for lane in mine), max((lane.share for lane in mine), default=0.0))
