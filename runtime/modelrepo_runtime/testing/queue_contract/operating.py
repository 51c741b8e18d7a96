"""What operators use: turns, tiers, explanations."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import (
    Cause,
)
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench


class OperatingContract:
    def test_turns_are_limited_renewed_and_run_out(self, bench: Bench) -> None:
        queue = bench.queue
        assert queue.take_turn("m", "a", 4, "50%", 10) and queue.take_turn("m", "b", 4, "50%", 10)
        assert not queue.take_turn("m", "c", 4, "50%", 10)
        assert queue.take_turn("m", "a", 4, "50%", 10) and queue.take_turn("n", "c", 4, "10%", 10)
        bench.clock.advance(6)
        assert queue.renew_turn("m", "b", 10)
        bench.clock.advance(5)
        assert not queue.renew_turn("m", "a", 10)
        assert queue.take_turn("m", "c", 4, "2", 10)
        queue.end_turn("m", "b")
        queue.end_turn("m", "b")
        assert queue.take_turn("m", "d", 4, "2", 10)

    def test_a_turn_does_not_last_because_the_clock_went_back(self, bench: Bench) -> None:
        assert bench.queue.take_turn("m", "crashed", 1, "1", 10)
        bench.clock.advance(-3600)
        assert bench.queue.take_turn("m", "next", 1, "1", 10)

    @pytest.mark.parametrize("share", ["1%", "0", "10%", "1"])
    def test_at_least_one_slot_may_always_swap(self, bench: Bench, share: str) -> None:
        assert bench.queue.take_turn("m", "a", 5, share, 10)
        assert not bench.queue.take_turn("m", "b", 5, share, 10)

    def test_a_turn_that_ran_out_is_gone_for_its_holder_once_another_has_it(self, bench: Bench) -> None:
        queue = bench.queue
        assert queue.take_turn("m", "slow", 1, "1", 10)
        bench.clock.advance(11)
        assert queue.take_turn("m", "next", 1, "1", 10)
        bench.clock.advance(-5)
        assert not queue.renew_turn("m", "slow", 10)

    def test_live_slots_of_a_model_are_counted_without_those_that_only_prepare(self, bench: Bench) -> None:
        first = bench.queue.hello(WorkerInfo("a", "a", 1, slots=("0", "1", "2")))
        slots = [SlotReport("0", "open", "m", "v1"), SlotReport("1", "cordoned", "m", "v1")]
        bench.queue.beat(first, (), [*slots, SlotReport("2", "open", "m", "v1", on=("cpu",))])
        bench.worker("b", open_for="n")
        assert [bench.queue.slots_serving(model) for model in ("m", "n", "other")] == [2, 1, 0]
        bench.clock.advance(bench.timing.lease_s + 1)
        assert bench.queue.slots_serving("m") == 0

    def test_tiers_can_be_added_changed_and_made_the_default(self, bench: Bench) -> None:
        queue = bench.queue
        assert [(tier.name, tier.slo_s, tier.default) for tier in queue.tiers()] == [
            ("api", 60, False),
            ("enterprise", 120, False),
            ("unlimited", 600, False),
            ("light", 1800, False),
            ("free", 7200, True),
        ]
        assert queue.set_tier("gold", slo_s=5).name == "gold"
        assert queue.set_tier("gold", allowed_miss=0.5).slo_s == 5
        queue.set_default_tier("gold")
        assert [tier.name for tier in queue.tiers() if tier.default] == ["gold"]
        assert bench.submit().tier == "gold"

    def test_a_tier_keeps_what_is_not_set_anew(self, bench: Bench) -> None:
        bench.queue.set_tier("api", keep_files_s=3600, keep_jobs_s=7200)
        tier = bench.queue.set_tier("api", slo_s=30)
        assert (tier.slo_s, tier.allowed_miss, tier.keep_files_s, tier.keep_jobs_s) == (30, 0.01, 3600, 7200)
        assert tier in bench.queue.tiers()
        with pytest.raises(InvalidInput, match="kept"):
            bench.queue.set_tier("api", keep_jobs_s=-1.0)

    def test_tiers_that_make_no_sense_are_refused(self, bench: Bench) -> None:
        for name, slo_s, miss in (("new", None, None), ("api", 0.0, None), ("api", 5.0, 1.0), ("a b", 5.0, None)):
            with pytest.raises(InvalidInput):
                bench.queue.set_tier(name, slo_s=slo_s, allowed_miss=miss)
        with pytest.raises(InvalidInput, match="gold"):
            bench.queue.set_default_tier("gold")

    def test_an_explanation_says_what_a_job_waits_for(self, bench: Bench) -> None:
        job = bench.submit(tier="api")
        bench.clock.advance(30)
        said = bench.queue.explain(job.id)
        words = " ".join(said.lines)
        assert "No live worker serves m" in words and "50%" in words and "stage run, tier api" in words
        assert said.facts["waits_for"] and said.facts["slo_share"] == 0.5
        session = bench.worker("w")
        assert "1 live slot may take it: w/0" in " ".join(bench.queue.explain(job.id).lines)
        bench.queue.beat(session, (), (SlotReport("0", "cordoned", "m", "v1"),))
        assert "cordoned" in " ".join(bench.queue.explain(job.id).lines)
        pinned = bench.submit(version="v7")
        bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))
        assert "needs version v7" in " ".join(bench.queue.explain(pinned.id).lines)

    def test_an_explanation_says_what_went_wrong_before(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        assert "Runs stage run as version v1 on w/0" in " ".join(bench.queue.explain(job.id).lines)
        bench.fail(session, claim, Cause.CRASH)
        words = " ".join(bench.queue.explain(job.id).lines)
        assert "delayed until" in words and "ended by crash" in words and "slot:w/0" in words
