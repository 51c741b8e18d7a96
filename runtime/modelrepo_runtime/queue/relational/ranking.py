"""Which rows go: the lanes of the models that polls ask for, read once for all polls that are answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.picking import UNLIMITED, Need, Picker, Quota
from modelrepo_runtime.queue.rank import NO_PICKS, Head, Picks, Policy
from modelrepo_runtime.queue.relational import tenancy
from modelrepo_runtime.queue.relational.rows import ReadyRow
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction


@dataclass(frozen=True, slots=True)
class Picked:
    """A row that goes, and the lane that it was in."""

    number: int
    lane: Lane
    row: ReadyRow


class Ranking:
    """The waiting rows of some models at one moment."""

    def __init__(
        self, tx: Transaction, models: Iterable[str], moment: float, wanted: int, lane_of: Callable[[Row], Lane]
    ) -> None:
        """`wanted`: how many rows all polls together may take."""
        self._tx, self._moment = tx, moment
        rows = [row for model in models for row in tx.rows("lane_heads", model, moment) if row["head"] is not None]
        if rows and rows[0]["pausing"]:
            pauses = {(row["model"], row["tier"]) for row in tx.rows("pauses")}
            rows = [row for row in rows if pauses.isdisjoint(_pausing(row))]
        self.lanes: Mapping[int, Lane] = {row["id"]: lane_of(row) for row in rows}
        """All that are neither empty nor paused."""
        self.any_failing = bool(rows and rows[0]["failing"])
        """True where some version is held back to probes."""
        self._policy = Policy(rows[0]["policy"] or Policy.SLO_SHARE) if rows else Policy.SLO_SHARE
        heads = [
            Head(row["id"], row["head"], row["slo_s"], row["allowed_miss"], bool(row["over"]), on_time=row["on_time"])
            for row in rows
        ]
        self._picker = Picker(heads, moment, self._policy, self._read, wanted)
        self._picks: dict[str, tuple[int, Picks, Picks]] = {}
        """Shard -> number of its row, its turns as they were read, and as they are."""
        self._tags: dict[str, list[tuple[str, bool, float]]] = defaultdict(list)

    def pick(self, shard: str, lanes: Mapping[int, bool], limit: int, quota: Quota = UNLIMITED) -> list[Picked]:
        """Take up to `limit` rows of some lanes; `lanes` says of each whether its model is warm.

        Polls of one `shard` share the turns of those that stand back.
        """
        turns = any(self.lanes[lane].over for lane in lanes) or self._policy is Policy.LWDF_LATE
        seq, read, picks = self._turns_of(shard) if turns else (0, NO_PICKS, NO_PICKS)
        chosen, picks = self._picker.pick(lanes, limit, picks, quota)
        if turns:
            self._picks[shard] = (seq, read, picks)
        for number, row in chosen:
            lane = self.lanes[number]
            if row.stage_index == 0:
                self._tags[lane.model].append((lane.tier, lane.over, row.tag))
        return [Picked(number, self.lanes[number], row) for number, row in chosen]

    def write(self) -> None:
        """Keep the turns, and move the clocks of the flows that were picked from."""
        for shard, (seq, read, picks) in self._picks.items():
            if picks != read:
                self._tx.run("picks_insert", shard, seq + 1, picks.over, picks.late, picks.turn)
                self._tx.run("picks_older", shard, seq + 1)
        for model, tags in self._tags.items():
            waiting = {lane.tier for lane in self.lanes.values() if lane.model == model and not lane.over}
            tenancy.note_claimed(self._tx, model, tags, waiting, self._moment)

    def _turns_of(self, shard: str) -> tuple[int, Picks, Picks]:
        if shard not in self._picks:
            row = self._tx.row("picks_newest", shard)
            picks = Picks(row["over"], row["late"], row["turn"]) if row is not None else NO_PICKS
            self._picks[shard] = (row["seq"] if row is not None else 0, picks, picks)
        return self._picks[shard]

    def _read(self, needs: Sequence[Need]) -> list[list[ReadyRow]]:
        by_age = "ready_ages" if self._policy in (Policy.SLO_SHARE, Policy.STRICT) else "ready_by_age"
        return _read(self._tx, needs, by_age)


def _pausing(row: Row) -> list[tuple[str, str]]:
    """Return the pauses that would hold a lane."""
    return [(model, tier) for model in ("", row["model"]) for tier in ("", row["tier"])]


_ready_row = partial(tuple.__new__, ReadyRow)
"""As `ReadyRow._make`, in a third of the time: a claim reads hundreds."""


def _read(tx: Snapshot, needs: Sequence[Need], by_age_name: str) -> list[list[ReadyRow]]:
    """Read on in many lanes at once, in one statement for each order."""
    found: list[list[ReadyRow]] = [[] for _ in needs]
    for name, by_age in (("ready_by_tag", False), (by_age_name, True)):
        places = [place for place, need in enumerate(needs) if need.by_age is by_age]
        values = [(needs[place].lane, *needs[place].after, needs[place].count) for place in places]
        for place, rows in zip(places, tx.statements.each(name, values) if values else (), strict=True):
            found[place] = list(map(_ready_row, rows))
    return found
