"""How far each job of a simulated day has come: its stage, its version, its attempts, and its lane."""

from __future__ import annotations

from modelrepo_runtime.attempts import Attempt
from modelrepo_runtime.jobs import Cause, Outcome
from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.steps import Held, Step, step_after
from modelrepo_runtime.simulation.day import MODEL, Day
from modelrepo_runtime.simulation.fleet import Slot
from modelrepo_runtime.simulation.waiting import Waiting
from modelrepo_runtime.simulation.workload import Workload
from modelrepo_runtime.timing import Timing

_FINE = Outcome(Cause.SUCCEEDED)


class Courses:
    """The course of every job. The columns are parallel, by job."""

    def __init__(self, day: Day, work: Workload, waiting: Waiting, timing: Timing) -> None:
        self._day, self._work, self._waiting, self._timing = day, work, waiting, timing
        self.stage = bytearray(len(work.at_s))
        self.version: list[str | None] = [None] * len(work.at_s)
        """Of the stages that a job has behind it, or of its running one."""
        self.bound: dict[int, int] = {}
        """Job -> the cluster in whose storage its hand-over lies."""
        self.attempts: dict[int, list[Attempt]] = {}
        """Of the jobs that have attempts that ended badly."""
        self._lanes: dict[tuple[int, int, str | None, int, bool], int] = {}
        self._steps: dict[tuple[int, str], Step] = {}

    def tried(self, job: int) -> int:
        """Return how many attempts at a job have ended badly."""
        return len(self.attempts.get(job, ())) if self.attempts else 0

    def cluster(self, job: int) -> int:
        """Return the cluster that a job is bound to; -1: none."""
        return self.bound.get(job, -1) if self.bound else -1

    def lane(self, job: int, over: bool, avoid: frozenset[str]) -> int:
        """Return the number of the lane in which a job waits for its stage."""
        stage, tier, version, cluster = self.stage[job], self._work.tier[job], self.version[job], self.cluster(job)
        key = (stage, tier, version, cluster, over)
        if not avoid and key in self._lanes:
            return self._lanes[key]
        day = self._day
        name = day.clusters[cluster].name if cluster >= 0 else None
        lane = Lane(MODEL, day.stages[stage].name, day.tiers[tier].name, version, avoid, name, over)
        number = self._waiting.lane(lane, day.tiers[tier])
        if not avoid:
            self._lanes[key] = number
        return number

    def succeeded(self, job: int, now: float) -> Step:
        """Return what follows a stage that has succeeded."""
        stage, version = self.stage[job], self.version[job]
        assert version is not None
        earlier = self.attempts.get(job, ()) if self.attempts else ()
        step = self._steps.get((stage, version)) if not earlier else None
        if step is None:
            step = step_after(self._held(job, "", ""), _FINE, earlier, now, self._timing)
            if not earlier:
                self._steps[stage, version] = step
        return step

    def failed(self, job: int, slot: Slot, outcome: Outcome, now: float) -> Step:
        """Note an attempt that ended badly, and return what follows it."""
        earlier = self.attempts.setdefault(job, [])
        step = step_after(self._held(job, slot.key, slot.box), outcome, earlier, now, self._timing)
        earlier.append(Attempt(outcome.cause, outcome.counted, slot.key, slot.box))
        return step

    def refund(self, job: int) -> None:
        """Let no earlier attempt count against a job."""
        self.attempts[job] = [Attempt(a.cause, False, a.slot, a.box) for a in self.attempts.get(job, [])]

    def begin_again(self, job: int) -> None:
        """Send a job back to its first stage, bound to no version."""
        self.stage[job], self.version[job] = 0, None

    def _held(self, job: int, slot: str, box: str) -> Held:
        stage, version = self.stage[job], self.version[job]
        assert version is not None
        return Held(
            stage_index=stage,
            last_stage=stage == len(self._day.stages) - 1,
            attempt=1,
            version=version,
            wanted=None,
            deadline=None,
            cancel_requested=False,
            slot=slot,
            box=box,
        )
