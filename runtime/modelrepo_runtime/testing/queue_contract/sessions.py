"""Sessions: beats, what is lost, and what the reaper may take back."""

from __future__ import annotations

from typing import Any

import pytest

from modelrepo.errors import StaleFence
from modelrepo_runtime.jobs import (
    Status,
)
from modelrepo_runtime.queue.port import Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench


class SessionContract:
    def test_a_beat_tells_what_was_lost(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.queue.expire_session(session.id, bench.queue.beats()[session.id])
        reply = bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
        assert reply.lost == {(claim.job_id, claim.fence)}
        with pytest.raises(StaleFence):
            bench.finish(session, claim)

    def test_a_claim_whose_answer_was_lost_goes_back_uncounted(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        for beat in range(4):
            assert bench.queue.get(job.id).status is Status.RUNNING, beat
            bench.clock.advance(bench.timing.beat_s * 0.9)
            bench.queue.beat(session, (), ())
        assert bench.queue.get(job.id).status is Status.QUEUED
        assert [(row.event, row.counted) for row in bench.queue.history(job.id)] == [("unanswered", False)]

    def test_a_lost_claim_goes_back_though_the_clock_went_back(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.clock.advance(-3600)
        for _ in range(2):
            assert bench.queue.get(job.id).status is Status.RUNNING
            bench.queue.beat(session, (), ())
        assert bench.queue.get(job.id).status is Status.QUEUED

    def test_a_finish_after_the_lease_went_back_unanswered_is_refused(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        for _ in range(4):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, (), ())
        with pytest.raises(StaleFence):
            bench.finish(session, claim)
        assert bench.claim_one(session).attempt == 2
        assert bench.queue.get(job.id).status is Status.RUNNING

    def test_a_lease_that_beats_name_again_is_kept(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        for number in range(10):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, [(job.id, claim.fence)] if number % 2 else (), ())
        assert bench.queue.get(job.id).status is Status.RUNNING

    def test_goodbye_gives_back_what_is_held(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.queue.goodbye(session)
        assert bench.queue.get(job.id).status is Status.QUEUED
        assert bench.queue.fleet() == ()
        bench.queue.goodbye(session)

    def test_the_fleet_shows_sessions_and_what_their_slots_say(self, bench: Bench) -> None:
        session = bench.queue.hello(WorkerInfo("w", "box", 17, "c", ("0", "1")))
        reports = (
            SlotReport("0", "open", "m", "v1", "d", 3, {"version": "v2", "phase": "loading"}, plan="overlap: fits"),
            SlotReport("1", "refused", reason="no GPU", deadline=5.0, next_action="attach one", phases={"load_s": 1.0}),
        )
        bench.queue.beat(session, (), reports)
        bench.clock.advance(2)
        (worker,) = bench.queue.fleet()
        assert worker.info == WorkerInfo("w", "box", 17, "c", ("0", "1"))
        assert (worker.session, worker.last_beat_age_s, worker.slots) == (session.id, 2.0, reports)

    def test_all_that_a_slot_says_of_itself_and_its_box_arrives_as_it_was_said(self, bench: Bench) -> None:
        session = bench.queue.hello(WorkerInfo("w", "box", 17, "c", ("0",)))
        facts: dict[str, Any] = {
            "job": {"stage": "generate", "attempt": 2, "since": 1_800_000_000.125, "batch": 4},
            "memory": {"device_used_bytes": 61 << 30, "device_total_bytes": 80 << 30, "child_bytes": 9 << 30},
            "last_swap": {"old": None, "reasons": ["\N{SNOWMAN} fits"], "why": None, "phases": {"fetching": 55.25}},
            "box": {"pool": {"state": "off", "reason": "no tmpfs"}, "states": {"waiting": 2}, "sick": ["2: Xid 79"]},
        }
        incoming: dict[str, Any] = {"version": "v2", "phase": "fetching", "since": 1.5, "done_bytes": 1 << 40}
        report = SlotReport("0", "open", "m", "v1", incoming=incoming, job_id="job_1", extra=facts)
        bench.queue.beat(session, (), (report,))
        (worker,) = bench.queue.fleet()
        assert worker.slots == (report,)

    def test_a_new_life_of_a_silent_worker_replaces_the_old(self, bench: Bench) -> None:
        bench.worker("w")
        bench.clock.advance(bench.timing.lease_s + 1)
        session = bench.worker("w")
        assert [report.session for report in bench.queue.fleet()] == [session.id]

    def test_the_reaper_takes_jobs_back_after_one_lease_of_silence(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        looks = 0
        while not (reaped := reaper.look()):
            looks += 1
            assert looks < 20
            bench.clock.advance(bench.timing.beat_s)
        assert [(found.job_id, found.session, found.status) for found in reaped] == [
            (job.id, session.id, Status.QUEUED)
        ]
        assert looks == bench.timing.lease_s / bench.timing.beat_s
        assert reaper.look() == ()

    def test_the_reaper_spares_a_worker_that_beats(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        for _ in range(20):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
            assert reaper.look() == ()

    def test_the_reaper_begins_anew_after_a_gap_of_its_own(self, bench: Bench) -> None:
        bench.submit()
        bench.claim_one(bench.worker())
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        for _ in range(3):
            reaper.look()
            bench.clock.advance(bench.timing.lease_s * 10)
        assert reaper.look() == ()

    def test_a_beat_that_moved_meanwhile_saves_the_session(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        seen = bench.queue.beats()[session.id]
        bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
        assert bench.queue.expire_session(session.id, seen) == ()
        assert bench.finish(session, claim) is Status.SUCCEEDED

    def test_a_job_whose_version_is_served_nowhere_begins_again_at_most_twice(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        both, reaper = ("prepare", "generate"), Reaper(bench.queue, bench.timing, bench.clock)
        for version in ("v1", "v2"):
            bench.finish(session, bench.claim_one(session, stages=both, version=version))
            self._let_a_lease_pass(bench, reaper, session, "v9")
            again = bench.queue.get(job.id)
            assert (again.status, again.stage, again.version) == (Status.QUEUED, "prepare", None)
        bench.finish(session, bench.claim_one(session, stages=both, version="v3"))
        self._let_a_lease_pass(bench, reaper, session, "v9")
        assert bench.queue.get(job.id).stage == "generate"
        words = " ".join(bench.queue.explain(job.id).lines)
        assert "v3" in words and "2 of at most 2" in words

    @pytest.mark.parametrize("incoming", [None, {"version": "v1", "phase": "loading"}])
    def test_a_job_waits_for_a_version_that_is_served_or_loading(self, bench: Bench, incoming: Any) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        bench.finish(session, bench.claim_one(session, stages=("prepare",)))
        version = "v2" if incoming else "v1"
        self._let_a_lease_pass(
            bench, Reaper(bench.queue, bench.timing, bench.clock), session, version, incoming=incoming
        )
        assert bench.queue.get(job.id).stage == "generate"

    def _let_a_lease_pass(
        self, bench: Bench, reaper: Reaper, session: Session, version: str, incoming: Any = None
    ) -> None:
        for _ in range(int(bench.timing.lease_s / bench.timing.beat_s) + 2):
            bench.queue.beat(session, (), (SlotReport("0", "open", "m", version, incoming=incoming),))
            reaper.look()
            bench.clock.advance(bench.timing.beat_s)
