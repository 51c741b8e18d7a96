"""The ready jobs of a simulated day, in the lanes of the queue and by its rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from modelrepo_runtime.queue import rank
from modelrepo_runtime.queue.lane_rows import LaneRows
from modelrepo_runtime.queue.lanes import Lane, LiveSlot, Place, admits, fits
from modelrepo_runtime.queue.port import Offer, Tier
from modelrepo_runtime.queue.rank import Picks, Policy, Which


class Row(NamedTuple):
    """A ready job."""

    tag: float
    enqueued: float
    job: int


class Poll:
    """What slots that are alike ask for, and the lanes with jobs that fit it."""

    __slots__ = ("avoiding", "cluster", "first", "later", "offers", "picks")

    def __init__(self, cluster: str, offers: tuple[Offer, ...]) -> None:
        self.cluster, self.offers = cluster, offers
        self.first: dict[int, LaneRows[Row]] = {}
        """Lanes of a plan's first stage, which may need a credit."""
        self.later: dict[int, LaneRows[Row]] = {}
        self.avoiding: dict[int, LaneRows[Row]] = {}
        """Lanes that keep away from places; they are in none of the others."""
        self.picks = Picks()

    def has_any(self, *, first: bool) -> bool:
        """True if there may be a job; `first`: also of the plan's first stage."""
        return bool(self.later or self.avoiding or (first and self.first))

    def takes(self, lane: Lane) -> bool:
        """True if a slot of these may take the lane's jobs, whatever they avoid."""
        return lane.cluster in (None, self.cluster) and any(fits(lane, offer) for offer in self.offers)


class Waiting:
    """All ready jobs."""

    def __init__(self, policy: Policy, first_stage: str) -> None:
        self.policy, self._first_stage = policy, first_stage
        self._numbers: dict[Lane, int] = {}
        self._lanes: list[Lane] = []
        self._rows: list[LaneRows[Row]] = []
        self._readers: list[list[dict[int, LaneRows[Row]]]] = []
        """Of each lane, where it is to be seen while it has jobs."""
        self._polls: list[Poll] = []

    def poll(self, cluster: str, offers: Iterable[Offer]) -> Poll:
        """Make a kind of slots known."""
        poll = Poll(cluster, tuple(offers))
        self._polls.append(poll)
        for number, lane in enumerate(self._lanes):
            if poll.takes(lane):
                self._seen_by(poll, number)
        return poll

    def lane(self, lane: Lane, tier: Tier) -> int:
        """Return the number of a lane."""
        number = self._numbers.get(lane)
        if number is None:
            number = self._numbers[lane] = len(self._lanes)
            self._lanes.append(lane)
            self._rows.append(LaneRows(number, tier.slo_s, tier.allowed_miss, over=lane.over))
            self._readers.append([])
            for poll in self._polls:
                if poll.takes(lane):
                    self._seen_by(poll, number)
        return number

    def _seen_by(self, poll: Poll, number: int) -> None:
        lane, rows = self._lanes[number], self._rows[number]
        where = poll.avoiding if lane.avoid else poll.first if lane.stage == self._first_stage else poll.later
        self._readers[number].append(where)
        if len(rows):
            where[number] = rows

    def add(self, number: int, row: Row) -> None:
        """Put a job into a lane."""
        rows = self._rows[number]
        if not len(rows):
            for reader in self._readers[number]:
                reader[number] = rows
        rows.add(row)

    def take(
        self,
        poll: Poll,
        now: float,
        *,
        first: bool = True,
        place: Place | None = None,
        live: Callable[[], Iterator[LiveSlot]] | None = None,
    ) -> tuple[Lane, Row] | None:
        """Take the job that is next for such a slot; `first`: also of the plan's first stage."""
        policy = self.policy
        asked = list(poll.later.values())
        if first:
            asked += poll.first.values()
        for number, rows in poll.avoiding.items():
            lane = self._lanes[number]
            away = place is not None and live is not None and not admits(lane, place, live)
            if not away and (first or lane.stage != self._first_stage):
                asked.append(rows)
        heads = [head for rows in asked if (head := rows.head(now, policy)) is not None]
        if not heads:
            return None
        won, poll.picks = rank.first_pick(heads, now, policy, poll.picks)
        if won is None:
            return None
        rows = self._rows[won.lane]
        row = rows.take(won.which, now)
        if not len(rows):
            self._emptied(won.lane)
        return self._lanes[won.lane], row

    def _emptied(self, number: int) -> None:
        for reader in self._readers[number]:
            reader.pop(number, None)

    def take_pinned(self, version: str, stage: str) -> list[tuple[Lane, Row]]:
        """Take all jobs that wait for a stage of one version."""
        found: list[tuple[Lane, Row]] = []
        for number, lane in enumerate(self._lanes):
            rows = self._rows[number]
            if (lane.version, lane.stage) != (version, stage) or not len(rows):
                continue
            while len(rows):
                found.append((lane, rows.take(Which.OLDEST, 0.0)))
            self._emptied(number)
        return found
