from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo_runtime.queue.lane_rows import LaneRows
from modelrepo_runtime.queue.picking import UNLIMITED, Need, Picker, Quota, pick
from modelrepo_runtime.queue.rank import NO_PICKS, Board, Head, Picks, Policy, first_pick, lwdf_weight, slo_share
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS
from modelrepo_runtime.testing.reference_order import WaitingJob, reference_order

NOW = 10_000.0
TIERS = {tier.name: tier for tier in SHIPPED_TIERS}


def waiting_jobs(*jobs: tuple[str, float], over: bool = False) -> list[WaitingJob]:
    """Jobs of tiers that have waited so long, each tier one lane, in the order they came."""
    names = list(dict.fromkeys(tier for tier, _ in jobs))
    came = sorted(jobs, key=lambda job: -job[1])
    return [
        WaitingJob(
            names.index(tier) + 100 * over,
            number + 1000 * over,
            NOW - waited,
            float(number),
            TIERS[tier].slo_s,
            TIERS[tier].allowed_miss,
            over,
        )
        for number, (tier, waited) in enumerate(came)
    ]


class Lanes:
    """Lanes in memory that count what is read of them."""

    def __init__(self, jobs: Sequence[WaitingJob]) -> None:
        self.jobs = jobs
        self.read_rows = self.reads = 0

    def heads(self) -> list[Head]:
        heads = []
        for lane in sorted({job.lane for job in self.jobs}):
            rows = [job for job in self.jobs if job.lane == lane]
            on_time = min((job.enqueued for job in rows if not job.late(NOW)), default=None)
            one = rows[0]
            oldest = min(job.enqueued for job in rows)
            heads.append(Head(lane, oldest, one.slo_s, one.allowed_miss, one.over, one.warm, on_time))
        return heads

    def read(self, needs: Sequence[Need]) -> list[list[WaitingJob]]:
        self.reads += 1
        found = []
        for need in needs:
            keyed = sorted(
                ((job.enqueued if need.by_age else job.tag, job.job), n)
                for n, job in enumerate(self.jobs)
                if job.lane == need.lane
            )
            rows = [self.jobs[n] for key, n in keyed if key > need.after][: need.count]
            self.read_rows += len(rows)
            found.append(rows)
        return found

    def pick(self, limit: int, policy: Policy = Policy.SLO_SHARE, picks: Picks = NO_PICKS) -> tuple[list[int], Picks]:
        chosen, after = pick(self.heads(), NOW, limit, self.read, policy, picks)
        return [row.job for _, row in chosen], after

    def lanes_picked(self, limit: int, policy: Policy = Policy.SLO_SHARE) -> list[int]:
        return [lane for lane, _ in pick(self.heads(), NOW, limit, self.read, policy)[0]]


def test_the_largest_share_wins_not_the_longest_wait() -> None:
    assert Lanes(waiting_jobs(("free", 1000.0), ("api", 50.0))).lanes_picked(2) == [1, 0]


def test_nobody_starves_behind_a_stricter_tier() -> None:
    jobs = waiting_jobs(("free", 7201.0), *[("api", 51.0 - n) for n in range(50)])
    assert Lanes(jobs).lanes_picked(1) == [0]


def test_under_strict_priority_the_lowest_tier_does_starve() -> None:
    jobs = waiting_jobs(("free", 7201.0), *[("api", 51.0 - n) for n in range(50)])
    assert Lanes(jobs).lanes_picked(51, Policy.STRICT) == [1] * 50 + [0]


def test_fifo_knows_neither_tiers_nor_tenants() -> None:
    jobs = [*waiting_jobs(("api", 5.0), ("free", 9.0)), *waiting_jobs(("light", 7.0), over=True)]
    assert Lanes(jobs).lanes_picked(3, Policy.FIFO) == [1, 100, 0]


def test_only_winning_lanes_are_read_deeper_and_many_in_one_read() -> None:
    jobs = [WaitingJob(0, n, float(n), float(n), 60) for n in range(1000)]
    jobs += [WaitingJob(1 + n // 20, 1000 + n, NOW - 1, 0.0, 7200) for n in range(1000)]
    lanes = Lanes(jobs)
    assert lanes.lanes_picked(50) == [0] * 50
    assert lanes.reads <= 3 and lanes.read_rows <= 500


def test_one_job_of_one_lane_is_one_row_read() -> None:
    lanes = Lanes([WaitingJob(n // 50, n, NOW - n, float(n), 60) for n in range(1000)])
    assert lanes.pick(1)[0] == [950]
    assert (lanes.reads, lanes.read_rows) == (1, 1)


def test_lanes_that_win_in_turns_are_read_in_few_rounds() -> None:
    lanes = Lanes([WaitingJob(n % 20, n, float(n), float(n), 60) for n in range(2000)])
    assert lanes.pick(50)[0] == list(range(50))
    assert lanes.reads <= 2


def test_a_share_of_one_is_exactly_on_time() -> None:
    assert slo_share(100.0, 160.0, 60.0) == 1.0


def test_the_row_that_goes_is_of_the_least_tag_though_the_lane_ranks_by_its_oldest() -> None:
    flood = [WaitingJob(0, n, NOW - 50, 10.0 * n, 60) for n in range(1, 4)]
    newcomer, other = WaitingJob(0, 9, NOW - 1, 5.0, 60), WaitingJob(1, 8, NOW - 49, 0.0, 60)
    assert Lanes([*flood, newcomer, other]).pick(3)[0] == [9, 1, 2]


def test_those_far_ahead_get_one_pick_in_ten_and_what_is_spare() -> None:
    jobs = waiting_jobs(*[("api", 50.0)] * 25) + waiting_jobs(*[("light", 9000.0)] * 30, over=True)
    assert Lanes(jobs).lanes_picked(35) == ([0] * 9 + [100]) * 2 + [0] * 7 + [100] * 8


def test_lanes_that_stand_back_take_turns_so_that_the_largest_flood_has_not_all_of_them() -> None:
    flood = [WaitingJob(1, n, NOW - 9000, float(n), 1800, over=True) for n in range(20)]
    others = [WaitingJob(lane, 50 + lane, NOW - 5, 0.0, 7200, over=True) for lane in (0, 2)]
    assert Lanes([*flood, *others]).lanes_picked(5) == [0, 1, 2, 1, 1]


def test_turns_go_on_from_one_claim_to_the_next() -> None:
    jobs = waiting_jobs(*[("api", 50.0)] * 25) + waiting_jobs(*[("light", 9000.0)] * 30, over=True)
    picks = Picks()
    for _ in range(9):
        _, picks = Lanes(jobs).pick(1, picks=picks)
    assert Lanes(jobs).pick(1, picks=picks) == ([1000], Picks(turn=100))


def test_a_turn_is_not_lost_where_nobody_stands_back() -> None:
    assert Lanes(waiting_jobs(*[("api", 50.0)] * 25)).pick(25)[1] == Picks()


def test_a_cold_lane_waits_until_four_fifths_of_its_slo() -> None:
    warm = WaitingJob(0, 0, NOW - 1, 0.0, 60)
    for waited, first in ((47.0, 0), (49.0, 1)):
        cold = WaitingJob(1, 1, NOW - waited, 0.0, 60, warm=False)
        assert Lanes([warm, cold]).lanes_picked(2)[0] == first


def test_in_overload_nine_of_ten_picks_go_to_jobs_that_can_still_be_in_time() -> None:
    jobs = waiting_jobs(*[("api", 70.0 + n) for n in range(40)], *[("free", 100.0 + n) for n in range(40)])
    assert Lanes(jobs).lanes_picked(20, Policy.LWDF_LATE) == ([1] * 9 + [0]) * 2


def test_in_overload_late_jobs_go_where_none_is_in_time() -> None:
    jobs = waiting_jobs(("api", 70.0), ("light", 1801.0), ("enterprise", 121.0))
    # weight x wait: api 5.37, light 2.30, enterprise 4.64
    assert Lanes(jobs).lanes_picked(3, Policy.LWDF_LATE) == [0, 2, 1]


def test_in_overload_the_turn_of_late_jobs_goes_to_the_largest_share_of_an_slo() -> None:
    jobs = waiting_jobs(("free", 20_000.0), ("api", 200.0), *[("light", 100.0 + n) for n in range(20)])
    # shares of the late ones: free 2.8, api 3.3; by age the free one would go first
    assert Lanes(jobs).lanes_picked(20, Policy.LWDF_LATE) == [2] * 9 + [1] + [2] * 9 + [0]


def test_the_weight_of_a_tier_grows_with_what_it_promises() -> None:
    assert lwdf_weight(60, 0.01) == pytest.approx(-math.log(0.01) / 60)
    weights = [lwdf_weight(tier.slo_s, tier.allowed_miss) for tier in SHIPPED_TIERS]
    assert weights == sorted(weights, reverse=True)
    assert math.isfinite(lwdf_weight(60, 0.0))


@st.composite
def queues(draw: st.DrawFn) -> list[WaitingJob]:
    """Several lanes with rows of many tenants: tags know nothing of age."""
    jobs: list[WaitingJob] = []
    for lane in range(draw(st.integers(1, 5))):
        tier = draw(st.sampled_from([(60.0, 0.01), (120.0, 0.05), (7200.0, 0.2)]))
        over, warm = draw(st.booleans()), draw(st.sampled_from([True, True, False]))
        rows = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12)), max_size=20))
        for waited, tag in rows:
            jobs.append(WaitingJob(lane, len(jobs) + 1, NOW - waited, float(tag), *tier, over, warm))
    return jobs


@given(
    queues(),
    st.integers(1, 40),
    st.sampled_from(Policy),
    st.builds(Picks, st.integers(0, 9), st.integers(0, 9), st.integers(-1, 5)),
)
def test_a_choice_is_what_sorting_everything_would_give(
    jobs: list[WaitingJob], limit: int, policy: Policy, picks: Picks
) -> None:
    assert Lanes(jobs).pick(limit, policy, picks) == reference_order(jobs, NOW, limit, policy, picks)


@given(queues(), st.sampled_from(Policy), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 31)), max_size=12))
def test_polls_that_are_answered_together_get_what_they_would_get_one_by_one(
    jobs: list[WaitingJob], policy: Policy, polls: list[tuple[int, int]]
) -> None:
    lanes = Lanes(jobs)
    warm = {head.lane: head.warm for head in lanes.heads()}
    picker = Picker(lanes.heads(), NOW, policy, lanes.read, sum(limit for limit, _ in polls))
    left, picks = list(jobs), NO_PICKS
    for limit, mask in polls:
        fits = {lane: is_warm for lane, is_warm in warm.items() if mask >> lane & 1}
        fitting = [job for job in left if job.lane in fits]
        expected = reference_order(fitting, NOW, limit, policy, picks)
        chosen, picks = picker.pick(fits, limit, picks)
        assert ([row.job for _, row in chosen], picks) == expected
        left = [job for job in left if job.job not in expected[0]]


def test_a_quota_holds_for_its_lanes_together() -> None:
    lanes = Lanes(waiting_jobs(("api", 50.0), ("api", 49.0), ("light", 60.0), ("light", 59.0), ("free", 7000.0)))
    picker = Picker(lanes.heads(), NOW, Policy.SLO_SHARE, lanes.read, 10)
    warm = dict.fromkeys((0, 1, 2), True)
    for quota, expected in (
        (Quota(frozenset({1, 2}), 1), [2, 0, 0]),
        (Quota(frozenset({1}), 0), []),
        (UNLIMITED, [1, 1]),
    ):
        chosen, _ = picker.pick(warm, 5, NO_PICKS, quota)
        assert [lane for lane, _ in chosen] == expected


@given(queues(), st.sampled_from(Policy), st.lists(st.integers(0, 40), max_size=6))
def test_lanes_in_memory_give_the_same_order_as_time_goes_by(
    jobs: list[WaitingJob], policy: Policy, pauses: list[int]
) -> None:
    lanes: dict[int, LaneRows[WaitingJob]] = {}
    for job in jobs:
        lane = lanes.setdefault(job.lane, LaneRows(job.lane, job.slo_s, job.allowed_miss, over=job.over))
        lane.add(job)
    left, now, picks, expected_picks = list(jobs), NOW, Picks(), Picks()
    for pause in (*pauses, *[0] * len(jobs)):
        now += pause
        heads = [lane.head(now, policy, warm=rows[0].warm) for lane in lanes.values() if (rows := _of(left, lane.lane))]
        board = Board([head for head in heads if head is not None], now, policy, picks)
        won, picks = board.next(), board.picks
        expected, expected_picks = reference_order(left, now, 1, policy, expected_picks)
        taken = [lanes[won.lane].take(won.which, now).job] if won is not None else []
        assert (taken, picks) == (expected, expected_picks)
        left = [job for job in left if job.job not in taken]


def _of(jobs: list[WaitingJob], lane: int) -> list[WaitingJob]:
    return [job for job in jobs if job.lane == lane]


@pytest.mark.parametrize("policy", [Policy.SLO_SHARE, Policy.LWDF_LATE])
def test_no_tier_starves_under_a_load_of_1_15_times_what_can_be_served(policy: Policy) -> None:
    slos_s = [tier.slo_s / 60 for tier in SHIPPED_TIERS]
    lanes = [LaneRows[WaitingJob](n, slo_s, SHIPPED_TIERS[n].allowed_miss) for n, slo_s in enumerate(slos_s)]
    served, picks = [0] * len(lanes), NO_PICKS
    for second in range(6000):
        lane, now = second % len(lanes), NOW + second
        lanes[lane].add(WaitingJob(lane, second, now, float(second), slos_s[lane]))
        board = Board([head for one in lanes if (head := one.head(now, policy))], now, policy, picks)
        if second % 23 < 20 and (won := board.next()):
            lanes[won.lane].take(won.which, now)
            served[won.lane] += second >= 3000
        picks = board.picks
    assert min(served) > 100


@given(
    st.lists(
        st.builds(
            Head,
            st.integers(0, 5),
            st.sampled_from([0.0, 1.0, 50.0, 900.0]),
            st.sampled_from([60.0, 600.0]),
            over=st.booleans(),
            warm=st.booleans(),
            on_time=st.none() | st.just(950.0),
        ),
        max_size=6,
        unique_by=lambda head: head.lane,
    ),
    st.sampled_from(Policy),
    st.builds(Picks, st.integers(0, 9), st.integers(0, 9), st.integers(-1, 5)),
)
def test_a_claim_of_one_job_gets_what_a_board_gives_first(heads: list[Head], policy: Policy, picks: Picks) -> None:
    board = Board(heads, 1000.0, policy, picks)
    assert first_pick(heads, 1000.0, policy, picks) == (board.next(), board.picks)


@given(queues(), st.sampled_from(Policy), st.data())
def test_a_lane_in_memory_knows_its_head_whatever_comes_and_goes(
    jobs: list[WaitingJob], policy: Policy, data: st.DataObject
) -> None:
    rows: LaneRows[WaitingJob] = LaneRows(0, 60.0)
    there: dict[int, WaitingJob] = {}
    now = NOW - 200.0
    for job in jobs:
        now += data.draw(st.sampled_from([0.0, 5.0, 50.0]))
        forget: bool = data.draw(st.booleans())
        if there and forget:
            gone: int = data.draw(st.sampled_from(sorted(there)))
            rows.remove(gone)
            del there[gone]
        rows.add(job)
        there[job.job] = job
        head = rows.head(now, policy)
        assert head is not None
        assert head.enqueued == min(row.enqueued for row in there.values())
        fresh = [row.enqueued for row in there.values() if row.enqueued >= now - 60.0]
        if policy is Policy.LWDF_LATE:
            assert head.on_time == min(fresh, default=None)
