"""Turns, and swaps that are halted after some slots refused them."""

from __future__ import annotations

from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.queue.swaps import Swap
from modelrepo_runtime.queue.turns import fetch_kind
from modelrepo_runtime.testing.queue_contract.bench import Bench

SWAP = Swap("m", "v2", "d" * 64, 7)


def serve(bench: Bench, *names: str) -> None:
    for name in names:
        session = bench.queue.hello(WorkerInfo(name, f"box-{name}", 1, "c", ("0", "1", "2", "3")))
        bench.queue.beat(session, (), [SlotReport(slot, "open", "m", "v1") for slot in ("0", "1", "2", "3")])


class SwapContract:
    def test_turns_of_each_kind_are_counted_apart(self, bench: Bench) -> None:
        queue, east, west = bench.queue, fetch_kind("east"), fetch_kind("west")
        assert queue.take_turn("m", "w", 9, "1", 10) and not queue.take_turn("m", "x", 9, "1", 10)
        assert queue.take_turn("m", "w", 0, "2", 10, east) and queue.take_turn("m", "x", 0, "2", 10, east)
        assert not queue.take_turn("m", "y", 0, "2", 10, east)
        assert queue.take_turn("m", "y", 0, "2", 10, west)
        assert queue.renew_turn("m", "x", 10, east) and not queue.renew_turn("m", "x", 10)
        queue.end_turn("m", "x", east)
        assert queue.take_turn("m", "y", 0, "2", 10, east)
        assert not queue.take_turn("m", "x", 9, "1", 10)

    def test_the_third_slot_that_refuses_a_version_halts_its_swap(self, bench: Bench) -> None:
        queue = bench.queue
        serve(bench, "a", "b", "c")
        assert queue.halt_of(SWAP) is None
        assert not queue.refuse_swap(SWAP, "a", "0", "it does not load")
        assert not queue.refuse_swap(SWAP, "a", "0", "nor the second time")
        assert not queue.refuse_swap(SWAP, "b", "0", "it does not load")
        assert queue.halt_of(SWAP) is None
        assert queue.refuse_swap(SWAP, "c", "0", "no such layer")
        assert queue.refuse_swap(SWAP, "c", "1", "it does not load")
        halt = queue.halt_of(SWAP)
        assert halt is not None
        assert (halt.swap, halt.since) == (SWAP, bench.clock())
        assert [(each.key, each.reason) for each in halt.refused[:2]] == [
            ("a/0", "it does not load"),
            ("b/0", "it does not load"),
        ]
        (event,) = queue.fleet_events(kind="swap_halted")
        assert (event.model, event.version) == ("m", "v2")
        assert "halted: a/0, b/0, c/0 refused it" in event.text and "promote m@v2 --retry" in event.text

    def test_what_a_slot_refuses_is_explained(self, bench: Bench) -> None:
        session = bench.queue.hello(WorkerInfo("a", "box-a", 1, "c", ("0",)))
        reason = "the swap to m@v2 is halted: x/0, y/0, z/0 refused it, the last one since no such layer"
        refused = SlotReport("0", "refused", "m", "v1", reason=reason, next_action="roll back")
        bench.queue.beat(session, (), [refused])
        lines = bench.queue.explain_worker("a").lines
        assert f"  {reason}. Next: roll back." in lines

    def test_another_generation_or_another_version_is_not_halted(self, bench: Bench) -> None:
        queue = bench.queue
        serve(bench, "a", "b")
        for worker, slot in (("a", "0"), ("a", "1"), ("b", "0")):
            queue.refuse_swap(SWAP, worker, slot, "broken")
        retried, other = Swap("m", "v2", "d" * 64, 8), Swap("m", "v3", "e" * 64, 7)
        assert queue.halt_of(SWAP) is not None
        assert queue.halt_of(retried) is None and queue.halt_of(other) is None
        assert not queue.refuse_swap(retried, "a", "0", "still broken")
        assert queue.halt_of(SWAP) is None, "what came before is forgotten"

    def test_one_worker_of_several_may_be_at_fault_itself(self, bench: Bench) -> None:
        serve(bench, "a", "b")
        refused = [bench.queue.refuse_swap(SWAP, "a", slot, "no compiler") for slot in ("0", "1", "2", "3")]
        assert not any(refused)
        assert bench.queue.refuse_swap(SWAP, "b", "0", "no compiler")

    def test_a_worker_that_is_alone_has_nobody_to_compare_with(self, bench: Bench) -> None:
        serve(bench, "a")
        assert [bench.queue.refuse_swap(SWAP, "a", slot, "broken") for slot in ("0", "1", "2")] == [False, False, True]

    def test_a_slot_where_it_comes_up_after_all_counts_no_more(self, bench: Bench) -> None:
        queue = bench.queue
        serve(bench, "a", "b", "c", "d")
        queue.refuse_swap(SWAP, "a", "0", "the index is away")
        queue.refuse_swap(SWAP, "b", "0", "the index is away")
        queue.accept_swap(SWAP, "a", "0")
        queue.accept_swap(SWAP, "a", "3")
        assert not queue.refuse_swap(SWAP, "c", "0", "the index is away")
        assert queue.refuse_swap(SWAP, "d", "0", "the index is away")
        queue.accept_swap(SWAP, "d", "0")
        assert queue.halt_of(SWAP) is not None, "what is halted stays so"
