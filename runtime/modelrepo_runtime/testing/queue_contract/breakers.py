"""The version breaker: a version that fails everywhere costs no job anything."""

from __future__ import annotations

from typing import Any

from modelrepo_runtime.jobs import Cause, Claim, StageNeed, Status
from modelrepo_runtime.queue.port import Session, SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, TWO_STAGES, Bench, offer_of


def workers(bench: Bench, count: int, version: str = "v2", cluster: str = "c") -> list[Session]:
    found: list[Session] = []
    for number in range(count):
        name = f"{cluster}-{version}-{number}"
        found.append(bench.queue.hello(WorkerInfo(name, f"box-{name}", 1, cluster, ("0",))))
        bench.queue.beat(found[-1], (), (SlotReport("0", "open", "m", version),))
    return found


def fail_ten(bench: Bench, sessions: list[Session], cause: Cause = Cause.EXCEPTION) -> list[Status]:
    """Let ten attempts fail, one after the other on each session."""
    held: list[tuple[Session, Claim]] = []
    for number in range(10):
        session = sessions[number % len(sessions)]
        held.append((session, bench.claim_one(session, version="v2")))
    return [bench.fail(session, claim, cause) for session, claim in held]


def claimed(bench: Bench, session: Session, version: str = "v2", **facts: Any) -> int:
    return len(bench.claim(session, offer_of(version=version, limit=5, **facts)))


class BreakerContract:
    def test_ten_failures_on_three_workers_make_a_version_fail(self, bench: Bench) -> None:
        for _ in range(20):
            bench.submit()
        fail_ten(bench, workers(bench, 3))
        (failing,) = bench.queue.failing_versions()
        assert (failing.model, failing.version, failing.stage, failing.since) == ("m", "v2", "run", bench.clock())
        assert (failing.attempts, failing.failed, failing.workers, failing.probing) == (10, 10, 3, ())

    def test_two_workers_may_be_at_fault_themselves(self, bench: Bench) -> None:
        for _ in range(20):
            bench.submit()
        fail_ten(bench, workers(bench, 2))
        assert bench.queue.failing_versions() == ()

    def test_a_version_that_mostly_works_does_not_fail(self, bench: Bench) -> None:
        for _ in range(40):
            bench.submit()
        sessions = workers(bench, 3)
        for session in sessions:
            claims = bench.claim(session, version="v2", limit=4)
            bench.queue.finish_all(session, [(claim.job_id, claim.fence, SUCCEEDED) for claim in claims])
        fail_ten(bench, sessions)
        assert bench.queue.failing_versions() == ()

    def test_failures_on_either_side_of_five_minutes_do_not_add_up(self, bench: Bench) -> None:
        for _ in range(40):
            bench.submit()
        sessions = workers(bench, 3)
        claims = [(session, bench.claim_one(session, version="v2")) for session in sessions * 3]
        for session, claim in claims:
            bench.fail(session, claim, Cause.EXCEPTION)
        bench.clock.advance(301)
        bench.queue.tend()
        bench.fail(sessions[0], bench.claim_one(sessions[0], version="v2"), Cause.EXCEPTION)
        assert bench.queue.failing_versions() == ()

    def test_what_the_failures_did_to_jobs_is_given_back(self, bench: Bench) -> None:
        jobs = [bench.submit() for _ in range(12)]
        sessions = workers(bench, 3)
        fail_ten(bench, sessions)
        rows = [row for job in jobs for row in bench.queue.history(job.id) if row.event == "attempt"]
        assert len(rows) == 10 and not any(row.counted for row in rows)

    def test_dead_letters_of_a_failing_version_come_back(self, bench: Bench) -> None:
        dead = bench.submit(deadline=bench.clock() + 3600)
        (first, *others) = workers(bench, 3)
        bench.fail(first, bench.claim_one(first, version="v2"), Cause.EXCEPTION)
        bench.clock.advance(60)
        (second, *_) = others
        assert bench.fail(second, bench.claim_one(second, version="v2"), Cause.EXCEPTION) is Status.FAILED
        for _ in range(20):
            bench.submit()
        fail_ten(bench, [first, *others])
        job = bench.queue.get(dead.id)
        assert (job.status, job.error, job.enqueued) == (Status.QUEUED, None, dead.enqueued)
        assert [row.event for row in bench.queue.history(dead.id)] == ["attempt", "attempt", "refunded"]
        (healthy,) = workers(bench, 1, "v1")
        assert bench.claim_one(healthy, version="v1").job_id == dead.id

    def test_dead_letters_of_another_version_stay(self, bench: Bench) -> None:
        dead = bench.submit()
        (old,) = workers(bench, 1, "v1")
        for _ in range(2):
            bench.fail(old, bench.claim_one(old, version="v1"), Cause.EXCEPTION)
            bench.clock.advance(60)
        for _ in range(20):
            bench.submit()
        fail_ten(bench, workers(bench, 3))
        assert bench.queue.get(dead.id).status is Status.FAILED

    def test_while_a_version_fails_its_failures_are_not_counted(self, bench: Bench) -> None:
        for _ in range(30):
            bench.submit()
        sessions = workers(bench, 3)
        before = [(session, bench.claim_one(session, version="v2")) for session in sessions]
        fail_ten(bench, sessions)
        for session, claim in before:
            assert bench.fail(session, claim, Cause.CRASH) is Status.QUEUED
        for _ in range(5):
            bench.clock.advance(2)
            assert bench.fail(sessions[0], bench.claim_one(sessions[0], version="v2"), Cause.CRASH) is Status.QUEUED
        assert not any(row.counted for row in bench.queue.history() if row.event == "attempt")
        assert bench.peek().ended == 0

    def test_each_cluster_probes_with_one_lease_at_a_time(self, bench: Bench) -> None:
        for _ in range(30):
            bench.submit()
        sessions, (elsewhere,) = workers(bench, 3), workers(bench, 1, cluster="d")
        fail_ten(bench, sessions)
        probe = bench.claim_one(sessions[0], version="v2", limit=5)
        assert [claimed(bench, session) for session in sessions] == [0, 0, 0]
        assert claimed(bench, elsewhere) == 1 and claimed(bench, elsewhere) == 0
        assert bench.queue.failing_versions()[0].probing == ("c", "d")
        bench.fail(sessions[0], probe, Cause.EXCEPTION)
        assert [claimed(bench, session) for session in sessions] == [1, 0, 0]

    def test_slots_that_serve_another_version_go_on(self, bench: Bench) -> None:
        for _ in range(30):
            bench.submit()
        (old,) = workers(bench, 1, "v1")
        fail_ten(bench, workers(bench, 3))
        assert claimed(bench, old, "v1") == 5

    def test_a_probes_success_ends_it(self, bench: Bench) -> None:
        for _ in range(30):
            bench.submit()
        sessions = workers(bench, 3)
        older = bench.claim_one(sessions[1], version="v2")
        fail_ten(bench, sessions)
        bench.clock.advance(1)
        probe = bench.claim_one(sessions[0], version="v2")
        bench.finish(sessions[1], older)
        assert len(bench.queue.failing_versions()) == 1
        bench.finish(sessions[0], probe)
        assert bench.queue.failing_versions() == ()
        assert claimed(bench, sessions[0]) == 5

    def test_after_it_closed_ten_new_failures_are_needed(self, bench: Bench) -> None:
        for _ in range(40):
            bench.submit()
        sessions = workers(bench, 3)
        fail_ten(bench, sessions)
        bench.clock.advance(1)
        bench.finish(sessions[0], bench.claim_one(sessions[0], version="v2"))
        bench.clock.advance(1)
        bench.fail(sessions[0], bench.claim_one(sessions[0], version="v2"), Cause.EXCEPTION)
        assert bench.queue.failing_versions() == ()
        fail_ten(bench, sessions)
        assert len(bench.queue.failing_versions()) == 1

    def test_an_operator_may_end_it(self, bench: Bench) -> None:
        for _ in range(30):
            bench.submit()
        sessions = workers(bench, 3)
        fail_ten(bench, sessions)
        assert bench.queue.reset_version("m", "v2")
        assert not bench.queue.reset_version("m", "v2")
        assert bench.queue.failing_versions() == ()
        assert claimed(bench, sessions[0]) == 5

    def test_a_stage_before_the_one_that_fails_does_not_end_it(self, bench: Bench) -> None:
        for _ in range(20):
            bench.submit(stages=TWO_STAGES)
        sessions = workers(bench, 3)
        prepare, generate = offer_of(version="v2", stages=("prepare",)), offer_of(version="v2", stages=("generate",))
        for session in sessions * 4:
            bench.finish(session, bench.claim_one(session, prepare))
        for session in sessions * 4:
            bench.fail(session, bench.claim_one(session, generate), Cause.CRASH)
        assert bench.queue.failing_versions()[0].stage == "generate"
        bench.clock.advance(2)
        bench.finish(sessions[0], bench.claim_one(sessions[0], prepare))
        assert len(bench.queue.failing_versions()) == 1
        bench.finish(sessions[0], bench.claim_one(sessions[0], generate))
        assert bench.queue.failing_versions() == ()

    def test_a_probe_may_go_on_with_its_own_job(self, bench: Bench) -> None:
        both = (StageNeed("prepare", "cpu"), StageNeed("generate"))
        for _ in range(20):
            bench.submit(stages=both)
        sessions = workers(bench, 3)
        offer = offer_of(version="v2", stages=("prepare", "generate"))
        held = [(session, bench.claim_one(session, offer)) for session in sessions * 4]
        for session, claim in held:
            bench.fail(session, claim, Cause.CRASH)
        bench.clock.advance(2)
        probe = bench.claim_one(sessions[0], offer)
        reply = bench.queue.finish(sessions[0], probe.job_id, probe.fence, SUCCEEDED, then=offer)
        assert reply.next is not None and reply.next.stage == "generate"

    def test_a_repeated_finish_counts_once(self, bench: Bench) -> None:
        for _ in range(20):
            bench.submit()
        sessions = workers(bench, 3)
        claims = [(session, bench.claim_one(session, version="v2")) for session in sessions * 3]
        for session, claim in claims:
            assert bench.fail(session, claim, Cause.EXCEPTION) is Status.QUEUED
            assert bench.fail(session, claim, Cause.EXCEPTION) is Status.QUEUED
        assert bench.queue.failing_versions() == ()
