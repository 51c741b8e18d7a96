"""What a worker does with the orders that its beats bring."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from modelrepo.errors import Forbidden, InvalidInput, ModelNotFound, ModelRepoError, VersionDeleted
from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.orders import GivenOrder, OrderDraft, Verb
from modelrepo_runtime.worker.order_keeper import OrderKeeper
from modelrepo_runtime.worker.slot_states import SlotState

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot
    from tests.unit.worker.conftest import Bench

LIMIT_S = 20.0

REFUSALS: Mapping[str, ModelRepoError] = {
    "other": InvalidInput("this worker serves only m"),
    "nowhere": ModelNotFound("no model nowhere"),
    "deleted": VersionDeleted("deleted@v1 is deleted"),
    "hidden": Forbidden("the token is not for hidden"),
}


class Boss:
    """A worker whose slots are the bench's, and what an operator says to it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.assigned: list[tuple[str, str, str | None]] = []
        self.seen_to: list[str] = []
        self.keeper = OrderKeeper(self, bench.session, bench.journal, self.seen_to.append)
        bench.heard = lambda reply: self.keeper.hear(reply.orders)
        bench.cordon = self.keeper.cordon
        self.keeper.start()

    def slot_names(self) -> Sequence[str]:
        return ("s0", "s1")

    def slot_of(self, name: str) -> Slot | None:
        return next((slot for slot in self.bench.slots if slot.parts.name == name), None)

    def assign_slot(self, name: str, model: str, version: str | None) -> bool:
        if model in REFUSALS:
            raise REFUSALS[model]
        self.assigned.append((name, model, version))
        return len(self.assigned) > 1

    def slots_total(self, model: str) -> int:
        return len(self.bench.slots)

    def order(self, verb: Verb, slot: str | None = None, argument: str | None = None) -> GivenOrder:
        (given,) = self.bench.queue.give_orders([OrderDraft("w", verb, slot, argument)])
        self.bench.session.tell_soon()
        return given

    def now(self, given: GivenOrder) -> GivenOrder:
        return next(each for each in self.bench.queue.orders("w") if each.order.id == given.order.id)

    def done(self, given: GivenOrder) -> GivenOrder:
        """Wait until an order is confirmed."""
        end = time.monotonic() + LIMIT_S
        while (found := self.now(given)).confirmed_at is None:
            assert time.monotonic() < end, self.bench.log.getvalue()
            with self.bench.session._news:
                self.bench.session._news.wait(0.01)
        return found


@pytest.fixture
def boss(bench: Bench) -> Iterator[Boss]:
    boss = Boss(bench)
    yield boss
    boss.keeper.stop(LIMIT_S)


def test_a_cordoned_slot_claims_nothing_until_it_is_opened(boss: Boss, bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    boss.done(boss.order(Verb.CORDON))
    report = slot.report()
    assert (report.state, report.next_action) == (
        SlotState.CORDONED.value,
        "`modelrepo workers uncordon` lets it take jobs again",
    )
    job = bench.submit()
    boss.done(boss.order(Verb.LOGS))  # a few beats later
    assert bench.queue.get(job).status is Status.QUEUED
    boss.done(boss.order(Verb.UNCORDON, "s0"))
    assert bench.done(job).status is Status.SUCCEEDED and slot.report().state == "open"


def test_a_drain_is_done_when_what_runs_has_ended(boss: Boss, bench: Bench) -> None:
    gate = bench.plant.gates["g"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job = bench.submit(gate="g")
    bench.until(slot, lambda slot: slot.held is not None)
    given = boss.order(Verb.DRAIN, "s0")
    boss.done(boss.order(Verb.LOGS))
    assert boss.now(given).confirmed_at is None
    gate.set()
    boss.done(given)
    assert bench.queue.get(job).status is Status.SUCCEEDED


def test_a_drained_slot_leaves_the_next_stage_to_others(boss: Boss, bench: Bench) -> None:
    gate = bench.plant.gates["g"] = threading.Event()
    slot = bench.slot()
    bench.plant.yaml["v1"] = "stages: [{name: one}, {name: two}]\n"
    bench.target("v1")
    job = bench.submit("one", "two", gate="g")
    bench.until(slot, lambda slot: slot.held is not None)
    given = boss.order(Verb.DRAIN)
    boss.done(boss.order(Verb.LOGS))
    gate.set()
    boss.done(given)
    found = bench.queue.get(job)
    assert (found.status, found.stage) == (Status.QUEUED, "two")


def test_children_are_restarted_by_turns_between_two_jobs(boss: Boss, bench: Bench) -> None:
    gate = bench.plant.load_gates["v1"] = threading.Event()
    gate.set()
    first, second = bench.slot("s0"), bench.slot("s1")
    bench.target("v1")
    bench.serves(first, "v1")
    bench.serves(second, "v1")
    gate.clear()
    before = list(bench.plant.children)
    given = boss.order(Verb.RESTART, None, "50%")
    bench.until(first, lambda _: len(bench.plant.children) == 3)
    boss.done(boss.order(Verb.LOGS))
    assert sum(child.alive for child in before) == 1 and boss.now(given).confirmed_at is None
    gate.set()
    boss.done(given)
    assert not any(child.alive for child in before)
    assert bench.done(bench.submit()).status is Status.SUCCEEDED


def test_opening_a_slot_that_its_own_breaker_cordoned_lets_it_try_one_job_at_once(boss: Boss, bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    with slot.changed:
        slot.breaker = replace(slot.breaker, cordoned_until=time.monotonic() + 1e6, reason="three jobs failed")
    job = bench.submit()
    boss.done(boss.order(Verb.UNCORDON))
    assert bench.done(job).status is Status.SUCCEEDED and slot.report().state == "open"


def test_an_assignment_is_followed_until_the_slot_serves_it(boss: Boss, bench: Bench) -> None:
    boss.done(boss.order(Verb.ASSIGN, "s1", "m@v7"))
    assert boss.assigned[:2] == [("s1", "m", "v7")] * 2


@pytest.mark.parametrize("model", ["other", "nowhere", "deleted", "hidden"])
def test_an_assignment_that_never_can_be_followed_is_refused(boss: Boss, bench: Bench, model: str) -> None:
    refused = boss.done(boss.order(Verb.ASSIGN, "s0", model))
    assert refused.refused and refused.answer == str(REFUSALS[model])
    assert bench.queue.take_back_orders([refused.order.id]) == 0, "it still stands"


def test_the_last_lines_are_brought(boss: Boss, bench: Bench) -> None:
    bench.journal.say("something-happened", what="a fan is loud")
    answer = boss.done(boss.order(Verb.LOGS)).answer
    assert answer is not None and 'something-happened what="a fan is loud"' in answer
