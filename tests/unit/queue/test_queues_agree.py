"""The queue in memory and the one on SQLite, step by step beside each other."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobs import Cause, Claim, Fence, JobError, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import JobFilter, JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

PLANS = ((StageNeed("run"),), (StageNeed("prepare", "cpu"), StageNeed("generate")))
TIMING = Timing.embedded()
CAUSES = st.sampled_from([cause for cause in Cause if cause is not Cause.SUCCEEDED])


class Both:
    """Makes the same call on two queues and compares what can be compared."""

    def __init__(self, *queues: JobQueue) -> None:
        self.queues = queues

    def call(self, name: str, *pairs: Any, **options: Any) -> tuple[Any, Any]:
        answers = tuple(
            self._one(queue, name, [pair[side] if isinstance(pair, tuple) else pair for pair in pairs], options)
            for side, queue in enumerate(self.queues)
        )
        kinds = [type(answer) for answer in answers]
        assert kinds[0] is kinds[1], answers
        return answers[0], answers[1]

    @staticmethod
    def _one(queue: JobQueue, name: str, values: list[Any], options: dict[str, Any]) -> Any:
        try:
            return getattr(queue, name)(*values, **options)
        except ModelRepoError as error:
            return error


def bare(claim: Claim) -> Claim:
    """A claim without its random token."""
    return replace(claim, fence=Fence(claim.fence.number, ""))


class QueuesAgree(RuleBasedStateMachine):
    jobs: Bundle[str] = Bundle("jobs")
    sessions: Bundle[tuple[Session, Session]] = Bundle("sessions")
    claims: Bundle[tuple[tuple[Session, Session], Claim, Claim]] = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="queues-agree-")
        self.clock = FakeClock()
        self._sqlite = SqliteQueue(Path(self._folder.name) / "q.db", TIMING, self.clock)
        self.both = Both(MemoryQueue("memory://agree", TIMING, self.clock), self._sqlite)
        self.number = 0
        self.seq = 0

    def teardown(self) -> None:
        if hasattr(self, "_sqlite"):
            self._sqlite.close()
            self._folder.cleanup()

    @rule(
        target=jobs,
        plan=st.sampled_from(PLANS),
        tier=st.sampled_from([None, "api", "light"]),
        version=st.sampled_from([None, None, "v1"]),
        deadline_s=st.sampled_from([None, None, 3.0]),
        key=st.sampled_from([None, None, "k"]),
    )
    def submit(self, plan: Any, tier: Any, version: Any, deadline_s: Any, key: Any) -> str:
        self.number += 1
        self.clock.advance(0.001)  # jobs of one instant may go in any order
        deadline = self.clock() + deadline_s if deadline_s else None
        job = Submission("m", {"tier": tier}, plan, tier, "t", version, deadline, job_id=f"job_{self.number}")
        answers = self.both.call("submit", job, idempotency_key=key)
        if isinstance(answers[0], ModelRepoError):
            return "job_unknown"
        assert answers[0] == answers[1]
        return str(answers[0].id)

    @rule(target=sessions, name=st.sampled_from(["a", "b", "c"]), host=st.sampled_from(["one", "two"]))
    def hello(self, name: str, host: str) -> Any:
        return self.both.call("hello", WorkerInfo(name, host, 1))

    @rule(
        target=claims,
        session=sessions,
        version=st.sampled_from(["v1", "v2"]),
        stages=st.sampled_from([("run", "prepare", "generate"), ("prepare",), ("generate",)]),
        staged=st.booleans(),
    )
    def claim(self, session: Any, version: str, stages: tuple[str, ...], staged: bool) -> Any:
        self.seq += 1
        plan = () if "run" in stages else (StageNeed("prepare", "cpu"), StageNeed("generate", "gpu"))
        offer = Offer("0", "m", version, stages, plan=plan, staged=staged)
        memory, sqlite = self.both.call("claim", session, self.seq, [offer])
        if isinstance(memory, ModelRepoError) or not memory:
            assert isinstance(memory, ModelRepoError) or sqlite == ()
            missing = Claim("job_unknown", Fence(10**6, ""), "m", "v1", "run", 0, True, 1, {}, None, "api", 0, 1, 0)
            return session, missing, missing
        assert [bare(one) for one in memory] == [bare(one) for one in sqlite]
        return session, memory[0], sqlite[0]

    @rule(claim=claims, then=st.booleans())
    def succeed(self, claim: Any, then: bool) -> None:
        self._finish(claim, Outcome(Cause.SUCCEEDED, [1]), Offer("0", "m", "v1", ("generate",)) if then else None)

    @rule(claim=claims)
    def start(self, claim: Any) -> None:
        session, memory, sqlite = claim
        self.both.call("start", session, memory.job_id, (memory.fence, sqlite.fence))

    @rule(claim=claims, cause=CAUSES, counted=st.booleans())
    def fail(self, claim: Any, cause: Cause, counted: bool) -> None:
        self._finish(claim, Outcome(cause, error=JobError(cause.value, "said"), counted=counted), None)

    def _finish(self, claim: Any, outcome: Outcome, then: Offer | None) -> None:
        session, memory, sqlite = claim
        job_id = memory.job_id
        answers = self.both.call("finish", session, job_id, (memory.fence, sqlite.fence), outcome, then=then)
        if not isinstance(answers[0], ModelRepoError):
            assert answers[0].status is answers[1].status
            after = [bare(answer.next) if answer.next else None for answer in answers]
            assert after[0] == after[1]

    @rule(claim=claims, fraction=st.floats(0, 1))
    def progress(self, claim: Any, fraction: float) -> None:
        self.both.call("progress", claim[1].job_id, (claim[1].fence, claim[2].fence), fraction, "x")

    @rule(claim=claims, told=st.booleans(), state=st.sampled_from(["open", "cordoned"]), version=st.sampled_from("12"))
    def beat(self, claim: Any, told: bool, state: str, version: str) -> None:
        session, memory, sqlite = claim
        reports = [SlotReport("0", state, "m", f"v{version}")]
        held = tuple([(one.job_id, one.fence)] if told else [] for one in (memory, sqlite))
        answers = self.both.call("beat", session, held, reports)
        if not isinstance(answers[0], ModelRepoError):
            assert answers[0].cancelled == answers[1].cancelled
            assert {job for job, _ in answers[0].lost} == {job for job, _ in answers[1].lost}

    @rule(session=sessions)
    def expire(self, session: Any) -> None:
        beats = self.both.call("beats")
        numbers = tuple(beats[side].get(session[side].id, 0) for side in (0, 1))
        assert numbers[0] == numbers[1]
        ids = (session[0].id, session[1].id)
        memory, sqlite = self.both.call("expire_session", ids, numbers)
        assert [(one.job_id, one.status) for one in memory] == [(one.job_id, one.status) for one in sqlite]

    @rule(session=consumes(sessions))
    def goodbye(self, session: Any) -> None:
        self.both.call("goodbye", session)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self._same("cancel", job)

    @rule(job=jobs)
    def delete(self, job: str) -> None:
        self._same("delete", job)

    @rule(job=jobs, force=st.booleans())
    def retry(self, job: str, force: bool) -> None:
        self._same("retry", [job])
        self._same("retry", JobFilter(model="m"), force=force)

    @rule(version=st.sampled_from(["v1", "v2"]))
    def restart(self, version: str) -> None:
        self._same("pinned_waiting")
        self._same("restart_pinned", "m", version)

    @rule(slo_s=st.sampled_from([1.0, 60.0, 5000.0]))
    def retier(self, slo_s: float) -> None:
        self.both.call("set_tier", "api", slo_s=slo_s)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0, 60.0, -100.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _same(self, name: str, *values: Any, **options: Any) -> None:
        memory, sqlite = self.both.call(name, *values, **options)
        assert isinstance(memory, ModelRepoError) or memory == sqlite

    @invariant()
    def everything_looks_the_same(self) -> None:
        if not hasattr(self, "both"):
            return
        self.both.call("tend")
        self._same("list", JobFilter())
        jobs = self.both.queues[0].list(JobFilter())
        for job in jobs:
            self._same("get", job.id)
            memory, sqlite = (queue.history(job.id) for queue in self.both.queues)
            assert [(row.event, row.cause, row.counted, row.stage, row.slot) for row in memory] == [
                (row.event, row.cause, row.counted, row.stage, row.slot) for row in sqlite
            ]
        if jobs:
            words = self.both.call("explain", jobs[0].id)
            assert words[0] == words[1]


QueuesAgree.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestQueuesAgree = QueuesAgree.TestCase
