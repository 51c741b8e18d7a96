from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo_runtime.queue.fair import Account, FlowClock, Share, claimed, corrected, difference_s, enter

PATIENT = Share(burst_jobs=math.inf)


@dataclass
class Flow:
    """A flow whose jobs go one by one: those that stand back where no other waits, or where a test takes one."""

    shares: dict[str, Share] = field(default_factory=dict)
    clock: FlowClock = field(default_factory=FlowClock)
    accounts: dict[str, Account] = field(default_factory=dict)
    main: list[tuple[float, int, str]] = field(default_factory=list)
    over: list[tuple[float, int, str]] = field(default_factory=list)
    entered: int = 0

    def submit(self, tenant: str, estimate_s: float = 1.0) -> bool:
        account = self.accounts.get(tenant, Account())
        place = enter(self.clock, account, self.shares.get(tenant, Share()), estimate_s)
        self.accounts[tenant] = place.account
        self.entered += 1
        heapq.heappush(self.over if place.over else self.main, (place.tag, self.entered, tenant))
        return place.over

    def claim(self, *, out_of_turn: bool = False) -> tuple[int, str]:
        over = out_of_turn or not self.main
        tag, number, tenant = heapq.heappop(self.over if over else self.main)
        self.clock = claimed(self.clock, tag, over=over, others_wait=bool(self.main))
        return number, tenant

    def claim_all(self) -> list[tuple[int, str]]:
        return [self.claim() for _ in range(len(self.main) + len(self.over))]


def test_jobs_of_one_tenant_go_in_the_order_they_came() -> None:
    flow = Flow()
    for _ in range(50):
        flow.submit("a")
    assert [number for number, _ in flow.claim_all()] == list(range(1, 51))


def test_a_newcomer_goes_before_a_flood_that_came_earlier() -> None:
    flow = Flow()
    for _ in range(50_000):
        flow.submit("flood")
    flow.claim()
    assert not flow.submit("other")
    assert flow.claim()[1] == "other"


def test_only_what_a_tenant_has_too_much_stands_back() -> None:
    flow = Flow()
    assert [flow.submit("flood") for _ in range(20)] == [False] * 11 + [True] * 9
    assert not flow.submit("other")


def test_new_jobs_of_a_flood_wait_behind_its_old_ones() -> None:
    flow = Flow()
    for _ in range(30):
        flow.submit("flood")
    for _ in range(11):
        flow.claim()
    assert flow.submit("flood")


def test_a_flood_that_was_served_with_spare_capacity_is_forgiven() -> None:
    flow = Flow()
    for _ in range(100):
        flow.submit("flood")
    flow.claim_all()
    assert not flow.submit("flood")


def test_being_served_out_of_turn_is_not_forgiven() -> None:
    flow = Flow()
    for _ in range(60):
        flow.submit("flood")
    before = flow.clock.v
    flow.claim(out_of_turn=True)
    assert flow.clock.v == before and flow.submit("flood")


def test_a_tenant_of_unlimited_burst_never_stands_back() -> None:
    flow = Flow({"a": PATIENT})
    assert not any(flow.submit("a") for _ in range(1000))


def test_weights_divide_a_contended_flow() -> None:
    flow = Flow({"three": Share(3.0, math.inf), "one": Share(1.0, math.inf)})
    for _ in range(400):
        flow.submit("three")
        flow.submit("one")
    assert Counter(flow.claim()[1] for _ in range(400)) == {"three": 300, "one": 100}


def test_idling_earns_nothing() -> None:
    flow = Flow({"busy": PATIENT, "late": PATIENT})
    for _ in range(100):
        flow.submit("busy")
    for _ in range(90):
        flow.claim()
    for _ in range(20):
        flow.submit("late")
    names = [flow.claim()[1] for _ in range(20)]
    assert abs(names.count("late") - names.count("busy")) <= 1


def test_a_tenant_whose_jobs_took_longer_than_thought_is_charged_for_it() -> None:
    account = corrected(Account(f=10.0), Share(weight=2.0), difference_s(1, 1.0, 5.0, counted=True))
    assert account.f == 12.0
    assert difference_s(2, 1.0, 5.0, counted=True) == 5.0
    assert difference_s(1, 1.0, 5.0, counted=False) == -1.0


def test_a_correction_does_not_let_a_new_job_pass_its_tenants_older_ones() -> None:
    clock, account = FlowClock(v=49.0), Account(f=100.0, tag=99.0)
    assert enter(clock, corrected(account, PATIENT, -50.0), PATIENT, 1.0).tag == 99.0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 20.0)), min_size=1, max_size=80),
    st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=3, max_size=3),
)
def test_tenants_that_always_have_jobs_get_their_weights_but_for_one_job(
    jobs: list[tuple[str, float]], weights: list[float]
) -> None:
    shares = {name: Share(weight, math.inf) for name, weight in zip("abc", weights, strict=True)}
    flow = Flow(shares)
    sizes = {}
    for tenant, estimate_s in jobs:
        flow.submit(tenant, estimate_s)
        sizes[flow.entered] = estimate_s / shares[tenant].weight
    left = Counter(tenant for tenant, _ in jobs)
    got: dict[str, float] = dict.fromkeys(left, 0.0)
    largest = {tenant: max(s / shares[tenant].weight for name, s in jobs if name == tenant) for tenant in left}
    while all(left.values()):
        number, tenant = flow.claim()
        got[tenant] += sizes[number]
        left[tenant] -= 1
        for one in left:
            for other in left:
                assert got[one] - got[other] <= largest[one] + largest[other] + 1e-9


@given(st.lists(st.sampled_from(["a", "b", "c", "claim", "claim"]), max_size=150))
def test_each_tenants_jobs_keep_their_order_whatever_comes_between(events: list[str]) -> None:
    flow, served = Flow(), []
    for event in events:
        if event != "claim":
            flow.submit(event)
        elif flow.main or flow.over:
            served.append(flow.claim())
    served += flow.claim_all()
    for tenant in "abc":
        numbers = [number for number, name in served if name == tenant]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("tenants", [1, 2, 5])
def test_a_clock_never_goes_back(tenants: int) -> None:
    flow, seen = Flow(), [0.0]
    for number in range(300):
        flow.submit(str(number % tenants), 1.0 + number % 7)
        if number % 3:
            flow.claim(out_of_turn=bool(flow.over) and number % 2 == 0)
        seen.append(flow.clock.v)
    assert seen == sorted(seen)


def test_second_jobs_do_not_starve_behind_tenants_that_are_new() -> None:
    """Two new tenants a second, one job of them goes a second: the flow is overloaded for ever."""
    clock, waiting = FlowClock(), list[tuple[float, int, str]]()
    account = enter(clock, Account(), Share(), 5.0, now=0.0).account
    second = enter(clock, account, Share(), 5.0, now=0.0)
    heapq.heappush(waiting, (second.tag, 0, "second job of one"))
    for now in range(1, 30):
        for n in (1, 2):
            place = enter(clock, Account(), Share(), 5.0, now=float(now))
            heapq.heappush(waiting, (place.tag, 2 * now + n, "new"))
        tag, _, name = heapq.heappop(waiting)
        clock = claimed(clock, tag, over=False, others_wait=True, now=float(now))
        if name != "new":
            assert 5 < now < 15  # after those that came before its tenant's first job would have been done
            return
    raise AssertionError("it never went")


def test_a_tenant_that_sends_what_one_accelerator_can_do_never_stands_back() -> None:
    clock, account = FlowClock(), Account()
    for now in range(0, 10_000, 5):
        place = enter(clock, account, Share(), 5.0, now=float(now))
        assert not place.over
        account = place.account
