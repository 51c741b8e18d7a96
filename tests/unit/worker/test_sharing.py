"""Which slots change their model: as facts, and as a worker that looks now and then."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from modelrepo_runtime.job_memory import MemoryNeed, MemoryRoom
from modelrepo_runtime.queue.demand import Demand, LaneDemand, Taker
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.mover import SHUNS_S, Mover
from modelrepo_runtime.worker.sharing import COLD_SHARE, Tenure, moves
from modelrepo_runtime.worker.slot import Slot

NOTHING = Demand()


def planned(
    tenures: Sequence[Tenure], wanted: Mapping[str, Demand], bring_up_s: Mapping[str, float] | None = None
) -> list[tuple[str, str]]:
    found = moves(tenures, sorted(wanted), lambda _, model: wanted.get(model, NOTHING), bring_up_s or {})
    return [(move.slot, move.new) for move in found]


def idle(slot: str, model: str, for_s: float = 10.0) -> Tenure:
    return Tenure(slot, model, for_s, 100.0, up=True)


def busy(slot: str, model: str, served_s: float = 100.0) -> Tenure:
    return Tenure(slot, model, 0.0, served_s, up=True)


def test_an_idle_slot_goes_to_the_model_whose_jobs_wait() -> None:
    assert planned([idle("0", "a")], {"a": NOTHING, "b": Demand(1, 0.1), "c": Demand(5, 0.3)}) == [("0", "c")]


def test_the_slot_that_rests_longest_goes_and_each_model_gets_one_at_a_time() -> None:
    slots = [idle("0", "a", 5), idle("1", "a", 9), idle("2", "a", 7)]
    assert planned(slots, {"b": Demand(9, 0.2), "c": Demand(1, 0.1)}) == [("1", "b"), ("2", "c")]
    coming = Tenure("1", "b", 0.0, 0.0, up=False)
    assert planned([idle("0", "a"), coming], {"b": Demand(9, 0.2)}) == []


def test_a_slot_with_work_stays_until_another_model_is_late() -> None:
    def when_cold_has_used(share: float, own: float = 0.5) -> list[tuple[str, str]]:
        return planned([busy("0", "a")], {"a": Demand(9, own), "b": Demand(1, share)})

    assert when_cold_has_used(COLD_SHARE - 0.01) == []
    assert when_cold_has_used(COLD_SHARE) == [("0", "b")]
    assert when_cold_has_used(1.5, own=1.6) == [], "its own jobs are later"


def test_of_slots_with_work_the_least_urgent_one_goes() -> None:
    wanted = {"a": Demand(9, 0.7), "b": Demand(9, 0.2), "c": Demand(1, 0.9)}
    assert planned([busy("0", "a"), busy("1", "b")], wanted) == [("1", "c")]


def test_what_is_dear_to_load_is_left_for_less() -> None:
    assert planned([idle("0", "a", 10)], {"b": Demand(1, 0.1)}, {"a": 11}) == []
    assert planned([idle("0", "a", 12)], {"b": Demand(1, 0.1)}, {"a": 11}) == [("0", "b")]
    late = {"a": Demand(9, 0.5), "b": Demand(1, 0.9)}
    assert planned([busy("0", "a", 40)], late, {"b": 11}) == [], "four times what the change takes"
    assert planned([busy("0", "a", 45)], late, {"b": 11}) == [("0", "b")]


def test_a_model_that_has_slots_here_is_helped_by_those_that_rest_long() -> None:
    wanted = {"a": NOTHING, "b": Demand(9, 0.3)}
    assert planned([idle("0", "a", 12), busy("1", "b")], wanted, {"a": 11}) == []
    assert planned([idle("0", "a", 45), busy("1", "b")], wanted, {"a": 11}) == [("0", "b")]
    assert planned([idle("0", "a", 45), idle("1", "b", 1)], wanted, {"a": 11}) == [], "one is free for it already"


def test_a_slot_that_refuses_its_model_goes_where_there_is_work() -> None:
    refusing = Tenure("0", "a", 10.0, 0.0, up=True)
    assert planned([refusing], {"a": Demand(9, 0.9), "b": Demand(1, 0.1)}) == [("0", "b")]


def test_jobs_of_other_clusters_or_kinds_that_failed_here_or_need_more_memory_are_no_demand() -> None:
    lanes = [
        LaneDemand("gpu", None, (), 1, 0.1),
        LaneDemand("gpu", "here", (), 2, 0.3),
        LaneDemand("gpu", "there", (), 4, 0.9),
        LaneDemand("cpu", None, (), 8, 0.9),
        LaneDemand("gpu", None, ("w",), 16, 0.9),
        LaneDemand("gpu", None, (), 32, 0.8, MemoryNeed(10)),
    ]
    assert Taker(("gpu",), "here", "w", MemoryRoom(9)).demand(lanes) == Demand(3, 0.3)
    assert Taker(("gpu",), "here", "w", MemoryRoom(10)).demand(lanes) == Demand(35, 0.8)
    assert Taker(("cpu", "gpu"), "there", "other").demand(lanes) == Demand(61, 0.9)


class FakeSlot:
    def __init__(self, model: str) -> None:
        self.model = model
        self.changed = threading.Condition()
        self.serving: object | None = object()
        self.refusal = self.held = self.incoming = self.withheld = None
        self.stopping = False


class Bench:
    """A roster and the fleet's turns, as the mover sees them."""

    def __init__(self, **slots: str) -> None:
        self.all = {name: FakeSlot(model) for name, model in slots.items()}
        self.waits: dict[str, Demand] = {}
        self.ordered: set[str] = set()
        self.cordoned: set[str] = set()
        self.gone = True
        """Whether what a slot had is gone once it is moved."""
        self.free_turns = True
        self.turns: list[tuple[str, str, int, str]] = []
        self.now = 1000.0
        self.log = io.StringIO()
        self.mover = Mover(self, self, Journal(self.log), lambda: self.now)

    def slots(self) -> Mapping[str, Slot]:
        return cast("Mapping[str, Slot]", self.all)

    def is_ordered(self, name: str) -> bool:
        return name in self.ordered

    def is_open(self, name: str) -> bool:
        return name not in self.cordoned

    def shared_models(self) -> Sequence[str]:
        return ("a", "b", "c")

    def demands(self, models: Sequence[str]) -> Callable[[str, str], Demand]:
        return lambda _, model: self.waits.get(model, NOTHING)

    def move(self, name: str, model: str) -> bool:
        if not self.gone:
            return False
        if self.all[name].model != model:
            self.all[name] = FakeSlot(model)
            self.all[name].serving = None
        return True

    def take_share_turn(self, model: str, slot: str, waiting: int, most: str) -> bool:
        if self.free_turns:
            self.turns.append((model, slot, waiting, most))
        return self.free_turns

    def end_share_turn(self, model: str, slot: str) -> None:
        self.turns = [turn for turn in self.turns if turn[:2] != (model, slot)]

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.mover.look()


@pytest.fixture
def bench() -> Bench:
    found = Bench(s="a")
    found.mover.look()
    return found


def test_a_move_is_begun_once_and_ended_when_the_model_serves(bench: Bench) -> None:
    bench.waits["b"] = Demand(3, 0.2)
    bench.gone = False
    bench.after(5)
    assert bench.turns == [("b", "s", 3, "100%")]
    assert "slot-moves slot=s to=b" in bench.log.getvalue()
    bench.gone = True
    bench.after(5)
    assert bench.all["s"].model == "b" and len(bench.turns) == 1
    bench.all["s"].serving = object()
    bench.after(5)
    assert bench.turns == []
    assert bench.log.getvalue().count("slot-moves") == 1


def test_without_a_turn_a_slot_stays(bench: Bench) -> None:
    bench.waits["b"], bench.free_turns = Demand(3, 0.2), False
    bench.after(5)
    assert bench.all["s"].model == "a"
    bench.free_turns = True
    bench.after(5)
    assert bench.all["s"].model == "b"


def test_slots_that_leave_work_are_few_at_once(bench: Bench) -> None:
    bench.waits.update(a=Demand(9, 0.1), b=Demand(30, 0.9))
    bench.after(5)
    assert bench.turns == [("b", "s", 30, "10%")]


def test_a_model_that_does_not_come_up_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.waits["b"] = Demand(3, 0.2)
    bench.after(5)
    bench.all["s"].refusal = cast("Any", object())
    bench.waits["c"] = Demand(1, 0.1)
    bench.after(5)
    assert "slot-moved-in-vain slot=s model=b" in bench.log.getvalue()
    assert bench.all["s"].model == "c"
    bench.all["s"].serving = object()
    bench.waits["c"] = NOTHING
    bench.after(5)
    bench.after(30)
    assert bench.all["s"].model == "c", "b was tried in vain"
    bench.after(SHUNS_S)
    assert bench.all["s"].model == "b"


def test_a_model_that_an_operator_orders_ends_a_move(bench: Bench) -> None:
    bench.waits["b"], bench.gone = Demand(3, 0.2), False
    bench.after(5)
    bench.ordered.add("s")
    bench.after(5)
    assert bench.turns == [] and bench.all["s"].model == "a"
    bench.after(5)
    assert bench.turns == []


def test_a_cordoned_slot_begins_no_move_and_ends_the_one_that_was_begun(bench: Bench) -> None:
    bench.waits["b"], bench.gone = Demand(3, 0.2), False
    bench.cordoned.add("s")
    bench.after(5)
    assert bench.turns == []
    bench.cordoned.clear()
    bench.after(5)
    bench.cordoned.add("s")
    bench.gone = True
    bench.after(5)
    assert bench.all["s"].model == "b", "what it had is told to leave already"
    bench.all["s"].serving = object()
    bench.cordoned.clear()
    bench.after(5)
    assert bench.turns == []
