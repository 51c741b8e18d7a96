"""What waits for a model, as a box sees it that may serve several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Demand:
    """The same, of all lanes that one slot could take jobs from."""

    waiting: int = 0
    share: float = 0.0
    """Of the most urgent of them."""


def lane_demands(report: QueueReport) -> tuple[LaneDemand, ...]:
    """Read from what operators see the lanes that another slot could help; not those of one version, or paused."""
    return tuple(
        LaneDemand(lane.on, lane.cluster, lane.avoid, lane.waiting, lane.share or 0.0)
        for lane in report.lanes
        if lane.waiting and lane.version is None and not lane.paused
    )


def demand_of(lanes: Iterable[LaneDemand], kinds: Iterable[str], cluster: str, worker: str) -> Demand:
    """Sum up what a slot of a worker could take that runs stages on `kinds`."""
    kinds = tuple(kinds)
    mine = [lane for lane in lanes if lane.on in kinds and lane.cluster in (None, cluster) and worker not in lane.avoid]
    return Demand(sum(lane.waiting for lane in mine), max((lane.share for lane in mine), default=0.0))
