from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from modelrepo_runtime.queue.rank import Head, choose, slo_share


@dataclass(frozen=True)
class Row:
    enqueued: float
    job: int


class Lanes:
    """Lanes in memory that count what is read of them."""

    def __init__(self, *lanes: tuple[float, list[float]]) -> None:
        numbers = itertools.count()
        self.rows = [[Row(at, next(numbers)) for at in sorted(ats)] for _, ats in lanes]
        self.slos = [slo for slo, _ in lanes]
        self.read_rows = 0

    def heads(self) -> list[Head]:
        return [Head(n, rows[0].enqueued, self.slos[n]) for n, rows in enumerate(self.rows) if rows]

    def read(self, lane: int, skip: int, count: int) -> Sequence[Row]:
        self.read_rows += count
        return self.rows[lane][skip : skip + count]

    def choose(self, now: float, limit: int) -> list[tuple[int, Row]]:
        return choose(self.heads(), now, limit, self.read)


def test_the_largest_share_wins_not_the_longest_wait() -> None:
    lanes = Lanes((7200, [0.0]), (60, [950.0]))
    assert [lane for lane, _ in lanes.choose(1000, 2)] == [1, 0]


def test_nobody_starves_behind_a_stricter_tier() -> None:
    lanes = Lanes((7200, [0.0]), (60, [7150.0 + n for n in range(50)]))
    assert lanes.choose(7201, 1)[0][0] == 0


def test_only_winning_lanes_are_read_deeper() -> None:
    lanes = Lanes((60, [float(n) for n in range(1000)]), *[(7200, [500.0] * 1000)] * 50)
    assert len(lanes.choose(1000, 50)) == 50
    assert lanes.read_rows <= 50 + 2


def test_a_share_of_one_is_exactly_on_time() -> None:
    assert slo_share(100.0, 160.0, 60.0) == 1.0


@given(
    st.lists(st.tuples(st.sampled_from([60.0, 120.0, 7200.0]), st.lists(st.floats(0, 1000), max_size=20)), max_size=6),
    st.integers(1, 40),
)
def test_a_choice_is_what_sorting_everything_would_give(lanes: list[tuple[float, list[float]]], limit: int) -> None:
    made = Lanes(*lanes)
    chosen = made.choose(1000.0, limit)
    everything = sorted(
        (-slo_share(row.enqueued, 1000.0, made.slos[lane]), row.enqueued)
        for lane, rows in enumerate(made.rows)
        for row in rows
    )
    shares = [(-slo_share(row.enqueued, 1000.0, made.slos[lane]), row.enqueued) for lane, row in chosen]
    assert shares == everything[:limit]
    assert len({row.job for _, row in chosen}) == len(chosen)
