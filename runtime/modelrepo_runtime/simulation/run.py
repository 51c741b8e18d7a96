"""One simulated day under one policy: the queue's own rules over a virtual clock."""

from __future__ import annotations

from itertools import islice

from modelrepo_runtime.jobs import Cause, Outcome, Status
from modelrepo_runtime.queue import credits as dispatch
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.queue.steps import enqueued_after
from modelrepo_runtime.simulation.agenda import Agenda
from modelrepo_runtime.simulation.breakers import Breakers, Turn
from modelrepo_runtime.simulation.courses import Courses
from modelrepo_runtime.simulation.credit_book import CreditBook, Key
from modelrepo_runtime.simulation.day import MODEL, Day, Rollout
from modelrepo_runtime.simulation.fleet import Fleet, Slot, Target
from modelrepo_runtime.simulation.ledger import Ledger
from modelrepo_runtime.simulation.tenancy import Tenancy
from modelrepo_runtime.simulation.waiting import Poll, Row, Waiting
from modelrepo_runtime.simulation.workload import Workload
from modelrepo_runtime.timing import Timing

MOST_ASKED = 8
"""Idle slots that are asked for one new job: more than a job can have attempts that it avoids."""
SAMPLES = 288
"""Moments of a day at which it is looked at for plots; every 2.5 minutes of 12 hours."""


class Run:
    """Runs a day once."""

    def __init__(self, day: Day, work: Workload, policy: Policy, timing: Timing | None = None) -> None:
        self.day, self.work, self.timing = day, work, timing or Timing()
        self.agenda = Agenda()
        self.ledger = Ledger(day, work)
        self.waiting = Waiting(policy, day.stages[0].name)
        self.tenancy = Tenancy(day, work)
        self.courses = Courses(day, work, self.waiting, self.timing)
        self.credits = CreditBook(day, self.ledger)
        self.breakers = Breakers()
        self.fleet = Fleet(day, self.agenda, self.poll, self.fed, self.breakers.failing)
        self._claimed = bytearray(len(work.at_s))
        self._cpus_free = [0] * len(day.clusters)
        self._cpus = [0] * len(day.clusters)
        self._gpu_polls: dict[Key, Poll] = {}
        self._cpu_polls: list[Poll] = []
        self._unserved: set[str] = set()
        self._gpu_stage = day.gpu_stage
        self._on_gpu = [stage.on == "gpu" for stage in day.stages]
        self._newest: float | None = None
        self._rolled_out: list[str] = [self.fleet.target.version]

    def play(self) -> Ledger:
        """Let the whole day pass."""
        day, agenda = self.day, self.agenda
        versions = [self.fleet.target.version, *(rollout.version for rollout in day.rollouts)]
        self._make_polls(versions)
        self._failing_share = {rollout.version: rollout.failing for rollout in day.rollouts}
        for number, cluster in enumerate(day.clusters):
            for step in cluster.cpus:
                agenda.at(step.at_s, self._set_cpus, (number, step.slots))
            for step in cluster.gpus:
                agenda.at(step.at_s, self.fleet.set_pool, (number, step.slots))
        for rollout in day.rollouts:
            agenda.at(rollout.at_s, self._promote, rollout)
        for moment, drawn in self.work.lost_boxes:
            agenda.at(moment, self._lose_box, drawn)
        self._every_s = max(1.0, self.work.at_s[-1] / SAMPLES)
        agenda.at(0.0, self._sample)
        agenda.run(self.work.at_s, self._arrive, lambda: self.ledger.unended == 0)
        self._sample(None)
        return self.ledger

    def _make_polls(self, versions: list[str]) -> None:
        stages = self.day.stages
        on_gpu = tuple(stage.name for stage in stages if stage.on == "gpu")
        on_cpu = tuple(stage.name for stage in stages if stage.on == "cpu")
        for number, cluster in enumerate(self.day.clusters):
            for version in versions:
                offer = Offer("gpu", MODEL, version, on_gpu, plan=stages)
                self._gpu_polls[number, version] = self.waiting.poll(cluster.name, [offer])
            every = [Offer("cpu", MODEL, version, on_cpu, plan=stages) for version in versions]
            self._cpu_polls.append(self.waiting.poll(cluster.name, every))

    # Jobs.

    def _arrive(self, job: int) -> None:
        now = self.agenda.now
        self._newest = enqueued = enqueued_after(self._newest, now)
        self.ledger.arrived(job, enqueued)
        self.tenancy.arrived(job, now)
        self.enter(job)

    def enter(self, job: int, avoid: frozenset[str] = frozenset()) -> None:
        """Make a job ready for its stage, and let a slot that has nothing to do look for it."""
        courses = self.courses
        stage, cluster = courses.stage[job], courses.cluster(job)
        lane = courses.lane(job, bool(self.tenancy.over[job]), avoid)
        self.waiting.add(lane, Row(self.tenancy.tag[job], self.ledger.enqueued[job], job))
        if self._on_gpu[stage]:
            self._wake_gpu(courses.version[job], cluster)
        else:
            for there in range(len(self._cpus_free)) if cluster < 0 else (cluster,):
                if self._cpus_free[there] > 0 and self.poll_cpu(there):
                    break

    def _wake_gpu(self, version: str | None, cluster: int) -> None:
        for (where, serves), slots in self.fleet.idle.items():
            if slots and version in (None, serves) and cluster in (-1, where):
                # The one that fell idle last; another where the job avoids that.
                for slot in list(islice(reversed(slots.values()), MOST_ASKED)):
                    if self._take(slot):
                        return
        if version is not None and not self.fleet.served(version, None if cluster < 0 else cluster):
            self._miss(version)

    def _end(self, job: int, status: Status) -> None:
        key = self.credits.take_from(job)
        self.ledger.ended(job, status, self.agenda.now)
        self._give_back(key)

    # CPU slots: alike but for their cluster, so they are only counted.

    def _set_cpus(self, what: tuple[int, int]) -> None:
        cluster, wanted = what
        self._cpus_free[cluster] += wanted - self._cpus[cluster]
        self._cpus[cluster] = wanted
        self.fed(cluster)

    def poll_cpu(self, cluster: int) -> bool:
        """Let a free CPU slot look for a job; False where there is none for it."""
        poll = self._cpu_polls[cluster]
        version = self._version_to_prepare(cluster) if poll.has_any(first=True) else None
        if not poll.has_any(first=version is not None):
            return False
        found = self.waiting.take(poll, self.agenda.now, first=version is not None)
        if found is None:
            return False
        row = found[1]
        job, stage = row.job, self.courses.stage[row.job]
        self._cpus_free[cluster] -= 1
        if stage == 0:
            assert version is not None
            self.courses.version[job] = version
            self.credits.grant(job, (cluster, version))
            self._claimed_first(job)
            if stage == self._gpu_stage:  # no stage on an accelerator: the wait ends here
                self.ledger.started(job, self.agenda.now)
        size = self.day.sizes[self.work.size[job]]
        self.agenda.after(size.stages_s[stage] * self.work.factor[job], self._cpu_done, (cluster, job))
        return True

    def _cpu_done(self, what: tuple[int, int]) -> None:
        cluster, job = what
        self._cpus_free[cluster] += 1
        if self.day.clusters[cluster].bound and self.courses.stage[job] == 0:
            self.courses.bound[job] = cluster
        self._go_on(job)
        if self._cpus_free[cluster] > 0:
            self.poll_cpu(cluster)

    def _go_on(self, job: int) -> None:
        """A stage has succeeded."""
        step = self.courses.succeeded(job, self.agenda.now)
        if step.status is Status.QUEUED:
            self.courses.stage[job] = step.stage_index
            self.enter(job, step.avoid)
        else:
            self._end(job, step.status)

    def _claimed_first(self, job: int) -> None:
        if not self._claimed[job]:
            self._claimed[job] = True
            self.tenancy.claimed(job, self.agenda.now)

    # Credits.

    def _version_to_prepare(self, cluster: int) -> str | None:
        if not self.credits.taken:
            return self.fleet.target.version
        return self.credits.version_to_prepare(cluster, self._rolled_out)

    def _give_back(self, key: Key | None) -> None:
        if key is None:
            return
        self.credits.give_back(key)
        if self._cpus_free[key[0]] > 0:
            self.poll_cpu(key[0])

    def fed(self, cluster: int) -> None:
        """The slots that a cluster's CPU workers prepare for have changed."""
        for version in self._rolled_out:
            self.credits.feed((cluster, version), self.fleet.feeding[cluster, version])
            if not self.fleet.served(version):
                self._miss(version)
        while self._cpus_free[cluster] > 0 and self.poll_cpu(cluster):
            pass

    # Accelerator slots.

    def poll(self, slot: Slot) -> None:
        """Let a slot without a job look for one."""
        if not self._take(slot):
            self.fleet.waits(slot)

    def _take(self, slot: Slot) -> bool:
        now, key = self.agenda.now, (slot.cluster, slot.version)
        record = self.breakers.record(slot.version)
        cluster = self.day.clusters[slot.cluster].name
        if record is not None and not record.allowed(cluster, 1):
            return False
        found = self.waiting.take(self._gpu_polls[key], now, place=slot.place, live=self.fleet.live)
        if found is None:
            return False
        job = found[1].job
        self.fleet.takes(slot, job, now)
        if record is not None:
            record.claimed(cluster)
        self.courses.version[job] = slot.version
        self.ledger.started(job, now)
        if self.courses.stage[job] == 0:
            self._claimed_first(job)
        held = self.credits.take_from(job)
        cause, taken_s = self._luck(job, slot.version)
        self.agenda.after(taken_s, self._gpu_done, (slot, slot.life, cause, taken_s))
        self._give_back(held)
        return True

    def _luck(self, job: int, version: str) -> tuple[Cause, float]:
        """Return how an attempt at the accelerator stage will end, and after how many seconds."""
        size, stage = self.day.sizes[self.work.size[job]], self._gpu_stage
        taken_s = size.stages_s[stage] * self.work.factor[job]
        if self._failing_share.get(version, 0.0) > self.work.luck[job]:
            return Cause.EXCEPTION, taken_s * self.work.luck[job]
        troubles, tried = self.work.trouble.get(job, ()), self.courses.tried(job)
        if tried >= len(troubles):
            return Cause.SUCCEEDED, taken_s
        trouble = troubles[tried]
        if trouble.cause is Cause.HANG:
            return trouble.cause, self.day.stages[stage].timeout_s
        return trouble.cause, taken_s * trouble.part

    def _gpu_done(self, what: tuple[Slot, int, Cause, float]) -> None:
        slot, life, cause, taken_s = what
        if slot.life != life:
            return
        job, claimed_at = slot.job, slot.claimed_at
        self.fleet.ends(slot)
        counted = self._report(slot, job, cause, claimed_at)
        self.tenancy.took(job, self.courses.tried(job) + 1, taken_s, counted=counted)
        if cause is Cause.SUCCEEDED:
            self._go_on(job)
        else:
            self._failed(job, slot, Outcome(cause, counted=counted))
        self.fleet.ready(slot)

    def _report(self, slot: Slot, job: int, cause: Cause, claimed_at: float) -> bool:
        """Tell the version's breaker; return whether the attempt counts."""
        if not self.day.rollouts:
            return True
        span = (claimed_at, self.agenda.now)
        counted, turn = self.breakers.ended(slot, self.day.clusters[slot.cluster].name, job, cause, span)
        if turn is Turn.OPENED:
            self.ledger.events["breaker opened"] += 1
            self._refund(slot.version)
        elif turn is Turn.CLOSED:
            self.ledger.events["breaker closed"] += 1
            self._wake_all(slot.version)
        elif turn is Turn.PROBED:
            self.agenda.after(0.0, self._wake_one, (slot.cluster, slot.version))
        return counted

    def _wake_one(self, what: tuple[int, str]) -> None:
        for slot in reversed(self.fleet.idle.get(what, {}).values()):
            self._take(slot)
            return

    def _wake_all(self, version: str) -> None:
        for (_, serves), slots in self.fleet.idle.items():
            for slot in list(slots.values()) if serves == version else ():
                if not self._take(slot):
                    break

    def _failed(self, job: int, slot: Slot, outcome: Outcome) -> None:
        step = self.courses.failed(job, slot, outcome, self.agenda.now)
        self.ledger.events[outcome.cause.value] += 1
        if step.status is not Status.QUEUED:
            self._end(job, step.status)
            return
        if dispatch.enters_again(self.day.stages, step.stage_index):
            self.credits.enter(job, (slot.cluster, slot.version))
        self.courses.stage[job], self.courses.version[job] = step.stage_index, step.version
        self.agenda.after(step.delay_s, self._due, (job, step.avoid))

    def _due(self, what: tuple[int, frozenset[str]]) -> None:
        self.enter(*what)

    # What happens to boxes and versions.

    def _lose_box(self, drawn: float) -> None:
        boxes = sum(
            -(-len(slots) // c.gpus_per_box) for slots, c in zip(self.fleet.slots, self.day.clusters, strict=True)
        )
        lost = self.fleet.lose(int(drawn * boxes), self.day.failures.box_away_s)
        self.ledger.events["boxes lost"] += 1
        # The last beat was up to one beat ago; a reaper sees a whole lease pass without another.
        self.agenda.after(self.timing.lease_s, self._reap, lost)

    def _reap(self, lost: list[tuple[int, Slot, int, float]]) -> None:
        for job, slot, _, claimed_at in lost:
            counted = self._report(slot, job, Cause.WORKER_LOST, claimed_at)
            self._failed(job, slot, Outcome(Cause.WORKER_LOST, counted=counted))

    def _promote(self, rollout: Rollout) -> None:
        before = self.fleet.target
        if rollout.version not in self._rolled_out:
            self._rolled_out.append(rollout.version)
        if rollout.rollback_after_s is not None:
            back = Target(before.version, rollout.max_unavailable, rollout.swap_s)
            self.agenda.after(rollout.rollback_after_s, self._aim, back)
        self._aim(Target(rollout.version, rollout.max_unavailable, rollout.swap_s))

    def _aim(self, target: Target) -> None:
        self.ledger.events["promotions"] += 1
        self.fleet.aim(target)

    def _refund(self, version: str) -> None:
        """Give jobs back what a version did to them before it was known to fail."""
        for job in self.breakers.failed_by(version):
            self.courses.refund(job)
            if self.ledger.status[job] is Status.FAILED:
                self.ledger.came_back(job)
                self.courses.begin_again(job)
                self.enter(job)

    def _miss(self, version: str) -> None:
        """Jobs may wait for a version that nothing serves: look again in a lease."""
        if version not in self._unserved and version in self._rolled_out:
            self._unserved.add(version)
            self.agenda.after(self.timing.lease_s, self._restart, version)

    def _restart(self, version: str) -> None:
        self._unserved.discard(version)
        if self.fleet.served(version):
            return
        for _, row in self.waiting.take_pinned(version, self.day.stages[self._gpu_stage].name):
            job = row.job
            self.ledger.events["restarted"] += 1
            self.courses.begin_again(job)
            self._give_back(self.credits.take_from(job))
            self.enter(job)

    def _sample(self, _: None) -> None:
        self.ledger.sample(self.agenda.now, self.fleet.serving, self.fleet.busy)
        self.agenda.after(self._every_s, self._sample)
