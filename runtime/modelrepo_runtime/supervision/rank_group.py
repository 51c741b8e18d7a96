"""A version that runs in several processes at once, one a device: to its slot, one child."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause

from .child import CANCEL_GRACE_S, TERMINATE_S, Child, ChildGone
from .environment import free_port
from .follow import OnPartial, OnProgress
from .memory_group import MakesGroups, SharedMemory
from .outcome import ended as ended_by_itself
from .rank_calls import Returned, call_all, do_all
from .rank_ends import FAILURE_GRACE_S, RankEnd, are_in_step, joined, patience_s
from .rank_job import divided
from .rank_logs import RankLogs
from .spawner import Spawner
from .spec import ChildOutcome, ChildSpec, Footprint, JobRequest, RankPlace, StopReport
from .states import ChildState, joint_state

_STEPS = ("gone before", "drained", "terminated", "killed")
"""Of stop reports, the gentlest first."""

_Answer = TypeVar("_Answer")
_Call = Callable[[int, Child, Sequence[JobRequest]], Sequence[ChildOutcome]]


class RankGroup:
    """The ranks of one version, started, asked and ended together; used as a Child is, from the same threads.

    All get the same jobs. What rank 0 says of one counts; the first that dies or fails ends the others.
    """

    def __init__(self, spec: ChildSpec, ranks: Sequence[Child], logs: RankLogs) -> None:
        self.spec = spec
        self.failure: str | None = None
        self._ranks = tuple(ranks)
        self._logs = logs
        self._lock = threading.Lock()
        self._busy = threading.RLock()
        self._stop_asked = False
        self._ended_at: float | None = None
        self._cancelled: set[str | None] = set()
        """Jobs of the call that runs now; None is all of them."""
        self._runs = False
        for child in self._ranks:
            child.when_running = partial(self._cancel_late, child)

    @classmethod
    def start(cls, spec: ChildSpec, spawner: Spawner, *, memory: MakesGroups | None = None) -> RankGroup:
        """Start all processes. Raises OSError where one cannot be started; none is left then."""
        rendezvous = spec.folder.absolute() / "rendezvous"
        rendezvous.unlink(missing_ok=True)
        port = free_port()
        logs = RankLogs(echo=2 if spec.live_output else None)
        shared = memory and SharedMemory(memory)
        ranks: list[Child] = []
        try:
            for rank in range(spec.ranks):
                own = spec_of_rank(spec, RankPlace(rank, port, rendezvous))
                ranks.append(Child.start(own, spawner, memory=shared, open_log=logs.of(rank)))
        except BaseException:
            for child in ranks:
                child.stop(0)
            raise
        return cls(spec, ranks, logs)

    @property
    def pid(self) -> int:
        return self._ranks[0].pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The first process of each rank."""
        return tuple(child.pid for child in self._ranks)

    @property
    def state(self) -> ChildState:
        return joint_state({child.state for child in self._ranks})

    @property
    def alive(self) -> bool:
        """False once any rank has ended or is being ended: the group is of no more use then."""
        return self._ended_at is None and all(child.alive for child in self._ranks)

    @property
    def reloads(self) -> bool:
        return all(child.reloads for child in self._ranks)

    @property
    def log_path(self) -> Path:
        """What rank 0 printed outside of jobs; each other rank has a file of that name in a folder of its own."""
        return self._ranks[0].log_path

    @property
    def has_memory_group(self) -> bool:
        """Whether all ranks are held in one memory cgroup."""
        return self._ranks[0].has_memory_group

    def footprint(self) -> Footprint:
        """Measure the host memory of all ranks, of what they map together only once."""
        parts = [child.footprint() for child in self._ranks]
        peaks = [part.peak_bytes for part in parts]
        own_bytes = sum(part.own_bytes for part in parts)
        mapped_bytes = max(part.rss_bytes - part.own_bytes for part in parts)
        return Footprint(own_bytes + mapped_bytes, max(peaks) if self.has_memory_group else sum(peaks), own_bytes)

    def load(self, timeout_s: float | None) -> dict[str, float]:
        """Wait until all ranks are ready; the times are those of the slowest.

        Raises EntrypointFailed, which names the rank; the group is gone then.
        """
        with self._busy:
            came = self._call(lambda _, child: child.load(timeout_s), self._patience_of_load_s)
            if all(one.answer is not None for one in came):
                phases = [one.answer for one in came if one.answer is not None]
                return {name: max(phase.get(name, 0.0) for phase in phases) for name in phases[0]}
            self._end()
            raise self._unfit(came)

    def reload(self, spec: ChildSpec, timeout_s: float | None) -> float:
        """As a Child does, on all ranks at once; those that could are taken back where one could not."""
        with self._busy:
            if not self._is_usable():
                self._end()
                raise ChildGone(f"{self.spec.name} had ended before it was to become {spec.name}")
            came = self._call(partial(self._reload, spec, timeout_s), lambda one: 0.0 if not one.alive else None)
            wrong = [one for one in came if one.error is not None]
            if not wrong:
                self.spec = spec
                return max(one.answer or 0.0 for one in came)
            done = [self._ranks[one.rank] for one in came if one.error is None]
            back = partial(self._reload, self.spec, timeout_s)
            if not self.alive or any(one.error for one in self._call(back, lambda _: FAILURE_GRACE_S, done)):
                self._end()
            raise EntrypointFailed(f"rank {wrong[0].rank}: {wrong[0].error}") from None

    def run(
        self,
        request: JobRequest,
        *,
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> ChildOutcome:
        """Run one attempt on all ranks. Raises: as a Child's."""

        def run(rank: int, child: Child, own: Sequence[JobRequest]) -> Sequence[ChildOutcome]:
            tell, show = (on_progress, on_partial) if rank == 0 else (None, None)
            return [
                child.run(own[0], timeout_s=timeout_s, on_progress=tell, on_partial=show, cancel_grace_s=cancel_grace_s)
            ]

        return self._run([request], run)[0]

    def run_batch(
        self,
        requests: Sequence[JobRequest],
        *,
        timeout_s: float | None,
        on_progress: Sequence[OnProgress | None] = (),
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> list[ChildOutcome]:
        """Run attempts of several jobs in one call on all ranks. Raises: as a Child's."""

        def run(rank: int, child: Child, own: Sequence[JobRequest]) -> Sequence[ChildOutcome]:
            tells = on_progress if rank == 0 else ()
            return child.run_batch(own, timeout_s=timeout_s, on_progress=tells, cancel_grace_s=cancel_grace_s)

        return self._run(requests, run)

    def cancel(self, job_id: str | None = None) -> None:
        """Cancel as a Child does; all ranks hear of it at the same question."""
        with self._lock:
            if self._runs:
                self._cancelled.add(job_id)
        for child in self._ranks:
            child.cancel(job_id)

    def dump_stacks(self) -> None:
        """Write the stacks of all ranks' threads to the log that is current."""
        do_all(self._ranks, Child.dump_stacks)

    def stop(self, grace_s: float = 10.0, *, terminate_s: float = TERMINATE_S) -> StopReport:
        """End all ranks at once, as a Child's `stop` does one."""
        self._stop_asked = True
        reports = do_all(self._ranks, lambda child: child.stop(grace_s, terminate_s=terminate_s))
        return StopReport(
            max((report.step for report in reports), key=_STEPS.index),
            tuple(sorted(pid for report in reports for pid in report.orphans)),
            all(report.gone for report in reports),
        )

    def _run(self, requests: Sequence[JobRequest], run: _Call) -> list[ChildOutcome]:
        with self._busy, ExitStack() as leaving:
            if not self._is_usable():
                self._end()
                raise ChildGone(f"{self.spec.name} had ended before {len(requests)} jobs were handed to it")
            for path in dict.fromkeys(request.log_path for request in requests):
                leaving.enter_context(self._logs.held(path))
            own = leaving.enter_context(divided(self.spec.folder, len(self._ranks), requests))
            with self._lock:
                self._runs, self._cancelled = True, set()
            try:
                came = self._call(lambda rank, child: run(rank, child, own[rank]), self._patience_s)
            finally:
                with self._lock:
                    self._runs = False
            ends = [self._end_of(one, len(requests)) for one in came]
            if not are_in_step(ends):
                self._end()
            return joined(ends, stop_asked=self._stop_asked)

    def _patience_of_load_s(self, one: Returned[dict[str, float]]) -> float | None:
        if one.error is None:
            return None
        return 0.0 if self._ranks[one.rank].died else FAILURE_GRACE_S

    def _patience_s(self, one: Returned[Sequence[ChildOutcome]]) -> float | None:
        if one.answer is None:
            return 0.0
        end = RankEnd(one.rank, tuple(one.answer), one.alive)
        return patience_s(end, cancel_asked=bool(self._cancelled))

    def _end_of(self, one: Returned[Sequence[ChildOutcome]], jobs: int) -> RankEnd:
        """Read what a rank's call came to. Raises what a callback of the job has raised."""
        if one.answer is not None:
            return RankEnd(one.rank, tuple(one.answer), one.alive)
        if isinstance(one.error, ChildGone):
            cause = Cause.PREEMPTED if self._stop_asked else Cause.CRASH
            how = self._ranks[one.rank].how_it_ended()
            gone = ended_by_itself(cause, f"it had ended before the job was handed to it ({how})", 0.0)
            return RankEnd(one.rank, (gone,) * jobs, False)
        self._end()
        assert one.error is not None
        raise one.error

    def _cancel_late(self, child: Child) -> None:
        """Tell a rank of what was cancelled before its thread had got as far."""
        with self._lock:
            wanted = tuple(self._cancelled)
        for job_id in wanted:
            child.cancel(job_id)

    def _reload(self, spec: ChildSpec, timeout_s: float | None, _: int, child: Child) -> float:
        assert child.spec.place is not None
        return child.reload(spec_of_rank(spec, child.spec.place), timeout_s)

    def _is_usable(self) -> bool:
        return self._ended_at is None and all(child.is_usable() for child in self._ranks)

    def _unfit(self, came: Sequence[Returned[dict[str, float]]]) -> BaseException:
        """Say which rank could not start: one that died at once, or the first that said why."""
        for one in came:
            if one.error is not None and not isinstance(one.error, EntrypointFailed):
                return one.error
        failed = [one for one in came if one.error is not None]
        first_end = self._ended_at or time.monotonic()
        own = [one for one in failed if self._ranks[one.rank].failed_at <= first_end] or failed
        first = min(own, key=lambda one: (not self._ranks[one.rank].died, self._ranks[one.rank].failed_at))
        child, log = self._ranks[first.rank], ""
        if isinstance(first.error, EntrypointFailed):
            log = first.error.log
        self.failure = f"rank {first.rank}: {child.failure}"
        where = "" if self.spec.live_output else f"; its output is in {child.log_path}"
        return EntrypointFailed(f"{self.spec.name} cannot start: {self.failure}{where}", log=log)

    def _call(
        self,
        call: Callable[[int, Child], _Answer],
        patience: Callable[[Returned[_Answer]], float | None],
        ranks: Sequence[Child] | None = None,
    ) -> list[Returned[_Answer]]:
        return call_all(self._ranks if ranks is None else ranks, call, patience, self._end)

    def _end(self) -> None:
        """End all ranks at once; twice is legal."""
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        do_all(self._ranks, lambda child: child.stop(0, terminate_s=0))


def spec_of_rank(spec: ChildSpec, place: RankPlace) -> ChildSpec:
    """Say how one rank of a group is started."""
    own = place.rank if len(spec.devices) > 1 else 0
    folder = spec.folder if place.rank == 0 else spec.folder / f"rank-{place.rank}"
    return replace(spec, place=place, device=spec.devices[own], folder=folder, live_output=False)


def start_child(spec: ChildSpec, spawner: Spawner, *, memory: MakesGroups | None = None) -> Child | RankGroup:
    """Start a version as its spec says: one process, or a group of ranks. Raises OSError."""
    if spec.ranks == 1:
        return Child.start(spec, spawner, memory=memory)
    return RankGroup.start(spec, spawner, memory=memory)
