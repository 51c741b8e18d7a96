"""Explanations: what a job waits for, what a worker could take, what the queue looks like."""

from __future__ import annotations

import pytest

from modelrepo.errors import WorkerNotFound
from modelrepo_runtime.jobs import Cause, StageNeed, Status
from modelrepo_runtime.queue.port import Explanation, Session, SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench, offer_of

PREPARED = (StageNeed("prepare", "cpu"), StageNeed("generate"))


def said(found: Explanation) -> str:
    return " ".join(found.lines)


def slot(bench: Bench, name: str, *, cluster: str = "c", **facts: object) -> Session:
    session = bench.queue.hello(WorkerInfo(name, f"box-{name}", 1, cluster, ("0",)))
    known: dict[str, object] = {"slot": "0", "state": "open", "model": "m", "version": "v1", **facts}
    bench.queue.beat(session, (), (SlotReport(**known),))  # type: ignore[arg-type]
    return session


def teach(bench: Bench, session: Session) -> None:
    """Let a job of five seconds succeed."""
    bench.submit()
    claim = bench.claim_one(session)
    bench.clock.advance(5)
    bench.finish(session, claim)
    bench.queue.tend()
    bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))


def let_fail(bench: Bench, sessions: list[Session]) -> None:
    for _ in range(12):
        bench.submit()
    held = [(session, bench.claim_one(session)) for session in sessions * 4]
    for session, claim in held:
        bench.fail(session, claim, Cause.EXCEPTION)


class ExplanationContract:
    def test_an_explanation_names_lane_rank_and_expected_start(self, bench: Bench) -> None:
        session = slot(bench, "w")
        teach(bench, session)
        first, second, api = bench.submit(), bench.submit(), bench.submit(tier="api")
        bench.clock.advance(2)
        found = bench.queue.explain(second.id)
        assert "any version" in said(found) and "2 jobs of its model would be taken before it" in said(found)
        assert "Its lane is number 2 of 2" in said(found) and "Its start is expected in 10 s" in said(found)
        assert found.facts["rank"] == {"lane": 2, "of": 2} and found.facts["lane"]["tier"] == "free"
        assert bench.queue.explain(api.id).facts["rank"] == {"lane": 1, "of": 2}
        assert "waits_for" not in bench.queue.explain(first.id).facts

    def test_a_running_job_says_where_and_until_when(self, bench: Bench) -> None:
        session = slot(bench, "w")
        teach(bench, session)
        bench.submit()
        claim = bench.claim_one(session)
        bench.clock.advance(2)
        words = said(bench.queue.explain(claim.job_id))
        assert "Runs stage run as version v1 on w/0" in words and "It is expected to end at" in words

    def test_it_says_that_no_slot_runs_such_stages(self, bench: Bench) -> None:
        slot(bench, "w", on=("cpu",))
        found = bench.queue.explain(bench.submit().id)
        assert found.facts["hindrance"] == "stage" and "No live slot of m runs gpu stages" in said(found)

    def test_it_says_that_its_version_is_failing(self, bench: Bench) -> None:
        sessions = [slot(bench, name) for name in ("a", "b", "c")]
        let_fail(bench, sessions)
        job = bench.submit()
        assert "hindrance" not in bench.queue.explain(job.id).facts
        bench.claim_one(sessions[0])
        last = bench.submit()
        found = bench.queue.explain(last.id)
        assert found.facts["hindrance"] == "breaker" and "Version v1 is failing (10 of 10 attempts" in said(found)
        slot(bench, "other", version="v2")
        assert bench.queue.explain(last.id).facts["slots"] == ["other/0"]

    def test_it_says_that_it_waits_for_a_credit(self, bench: Bench) -> None:
        slot(bench, "gpu", on=("gpu",))
        preparing = slot(bench, "cpu", on=("cpu",))
        jobs = [bench.submit(stages=PREPARED) for _ in range(4)]
        offer = offer_of(stages=("prepare",), plan=PREPARED, limit=4)
        taken = bench.claim(preparing, offer)
        assert len(taken) == 2
        found = bench.queue.explain(jobs[-1].id)
        assert found.facts["waits_for"] == "a dispatch credit" and "2 of at most 2 jobs of m@v1" in said(found)
        (credit,) = bench.queue.queue_report().credits
        assert (credit.cluster, credit.model, credit.version) == ("c", "m", "v1")
        assert (credit.in_flight, credit.limit) == (2, 2)

    def test_it_says_that_it_waits_for_the_end_of_its_delay(self, bench: Bench) -> None:
        session = slot(bench, "w")
        job = bench.submit()
        bench.fail(session, bench.claim_one(session), Cause.CRASH)
        found = bench.queue.explain(job.id)
        assert found.facts["waits_for"] == "the end of its delay" and found.facts["delayed_until"]

    def test_it_says_that_it_is_paused(self, bench: Bench) -> None:
        slot(bench, "w")
        job = bench.submit(tier="api")
        bench.queue.pause("m", "api")
        found = bench.queue.explain(job.id)
        assert found.facts["hindrance"] == "paused" and "are paused" in said(found)
        (lane,) = bench.queue.queue_report().lanes
        assert lane.paused and lane.wait_s is None
        (known,) = bench.queue.explain_worker("w").facts["slots"]
        assert [each["hindrance"] for each in known["may_not_take"]] == ["paused"]
        bench.queue.resume("m", "api")
        assert bench.queue.explain(job.id).facts["slots"] == ["w/0"]

    def test_it_says_that_its_tenant_is_ahead_of_its_share(self, bench: Bench) -> None:
        slot(bench, "w")
        jobs = [bench.submit(tenant="acme") for _ in range(20)]
        found = bench.queue.explain(jobs[-1].id)
        assert found.facts["lane"]["over"] and "Tenant acme is far ahead of its share" in said(found)
        assert "spare capacity" in found.facts["waits_for"]
        assert not bench.queue.explain(jobs[0].id).facts["lane"]["over"]
        assert {lane.over: lane.waiting > 0 for lane in bench.queue.queue_report().lanes} == {False: True, True: True}

    def test_a_worker_says_what_it_could_take_and_why_not_the_rest(self, bench: Bench) -> None:
        slot(bench, "w", on=("gpu",))
        other = slot(bench, "x", version="v2")
        for _ in range(3):
            bench.submit(tier="api")
        bench.submit(version="v2")
        bench.submit(model="n")
        bench.clock.advance(2)
        found = bench.queue.explain_worker("w")
        words = "\n".join(found.lines)
        assert "w/0 is open, serves m (v1), gpu stages, and is idle." in words
        assert "It could take 3 jobs" in words and "3 of stage run, tier api, any version" in words
        assert "Not 1 of stage run, tier free, version v2 only" in words and "v1 is served here" in words
        (known,) = found.facts["slots"]
        assert [lane["waiting"] for lane in known["may_take"]] == [3]
        assert [lane["hindrance"] for lane in known["may_not_take"]] == ["version"]
        claim = bench.claim_one(other, version="v2")
        (busy,) = bench.queue.explain_worker("x").facts["slots"]
        assert busy["job"] == claim.job_id

    def test_a_worker_that_avoids_a_job_says_so(self, bench: Bench) -> None:
        bad = slot(bench, "bad")
        slot(bench, "good")
        job = bench.submit()
        bench.fail(bad, bench.claim_one(bad), Cause.EXCEPTION)
        bench.clock.advance(2)
        bench.queue.tend()
        assert "failed here before" in "\n".join(bench.queue.explain_worker("bad").lines)
        assert "It could take 1 jobs" in "\n".join(bench.queue.explain_worker("good").lines)
        assert bench.queue.explain(job.id).facts["slots"] == ["good/0"]

    def test_a_worker_that_is_not_there_is_named_with_those_that_are(self, bench: Bench) -> None:
        slot(bench, "w")
        with pytest.raises(WorkerNotFound, match="no live worker nope; live are w"):
            bench.queue.explain_worker("nope")

    def test_the_report_has_a_line_a_lane(self, bench: Bench) -> None:
        session = slot(bench, "w")
        teach(bench, session)
        for tier in ("free", "free", "api"):
            bench.submit(tier=tier)
        bench.submit(model="n")
        bench.clock.advance(3)
        report = bench.queue.queue_report()
        assert [(lane.model, lane.tier, lane.waiting) for lane in report.lanes] == [
            ("m", "api", 1),
            ("m", "free", 2),
            ("n", "free", 1),
        ]
        api, free, other = report.lanes
        assert api.share == pytest.approx(0.05) and api.oldest_s == pytest.approx(3) and not api.paused
        assert [lane.wait_s for lane in (api, free)] == pytest.approx([5, 15]) and other.wait_s is None
        assert report.policy == "slo-share" and report.pauses == () and report.failing == ()
        assert [lane.model for lane in bench.queue.queue_report("n").lanes] == ["n"]
        assert [lane.tier for lane in bench.queue.queue_report(tier="api").lanes] == ["api"]

    def test_the_report_counts_what_is_delayed_apart(self, bench: Bench) -> None:
        session = slot(bench, "w")
        bench.submit()
        assert bench.fail(session, bench.claim_one(session), Cause.CRASH) is Status.QUEUED
        (lane,) = bench.queue.queue_report().lanes
        assert (lane.waiting, lane.delayed, lane.oldest_s, lane.avoid) == (0, 1, None, ("slot:w/0",))

    def test_the_report_names_failing_versions(self, bench: Bench) -> None:
        let_fail(bench, [slot(bench, name) for name in ("a", "b", "c")])
        (failing,) = bench.queue.queue_report().failing
        assert (failing.version, failing.failed) == ("v1", 10)
        assert bench.queue.queue_report("n").failing == ()
