"""One child, as its slot sees it: start, load, one job at a time, stop."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.child.frames import BadFrame, Message
from modelrepo_runtime.jobs import Cause

from . import outcome
from .follow import Follow, OnPartial, OnProgress
from .logs import BoundedLog, Log, OpenLog
from .memory_group import MakesGroups
from .messages import batch_message, empty, reload_message, run_message, start_message
from .process import ChildProcess
from .spawner import Spawner
from .spec import ChildOutcome, ChildSpec, Footprint, JobRequest, MemoryPeaks, SavedState, StopReport
from .states import ChildState, may_move

__all__ = ["Child", "ChildGone", "OnPartial", "OnProgress"]

CANCEL_GRACE_S = 30.0
TERMINATE_S = 3.0
"""From SIGTERM to SIGKILL."""
CLOSED_S = 0.5
"""How long a child that has closed its control channel may take to be gone by itself."""
STACKS_S = 2.0
"""How long a hung child may take to write its stacks before it is killed."""


class ChildGone(RuntimeError):
    """The child had ended before the job was handed to it; the job was not begun."""


class _LostError(Exception):
    """The conversation is over: the process ended, or what it sends cannot be trusted."""


class _UnfitError(_LostError):
    """The model said itself why it cannot start."""


class Child:
    """A version's process and the conversation with it.

    One thread calls `load` and `run`; `cancel`, `dump_stacks`, `stop` and the properties are safe from any thread.
    """

    def __init__(self, spec: ChildSpec, process: ChildProcess) -> None:
        self.spec = spec
        self.failure: str | None = None
        """Why it could not start, once `load` has failed."""
        self.failed_at = 0.0
        """When that was seen, by the monotonic clock."""
        self.died = False
        """Whether it said nothing of it."""
        self.when_running: Callable[[], None] | None = None
        """Called in the thread that runs a job, once `cancel` reaches it."""
        self.reloads = False
        """Once it is ready: whether its model has a method `reload`."""
        self._process = process
        self._nonce = secrets.token_hex(8)
        self._state = ChildState.STARTING
        self._inbox: deque[Message] = deque()
        self._lock = threading.RLock()
        self._ending = threading.Lock()
        self._busy = threading.RLock()
        self._report: StopReport | None = None
        self._killed_for_memory = False
        self._host_figures = ""
        self._let_go = False
        self._up = False
        self._stop_asked = False
        self._nonces: dict[str, str] = {}
        """Of the jobs that run now and are not cancelled."""
        self._cancel_asked_at: float | None = None

    @classmethod
    def start(
        cls, spec: ChildSpec, spawner: Spawner, *, memory: MakesGroups | None = None, open_log: OpenLog = BoundedLog
    ) -> Child:
        """Start the process; it imports the entrypoint at once. Raises OSError where it cannot be started."""
        child = cls(spec, ChildProcess(spec, spawner, memory, open_log))
        mode = "inspect" if spec.import_only else "serve"
        child._process.tell(start_message(spec, child._process.scratch, child._nonce, mode=mode))
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The first process of each rank: of this one, there is one."""
        return (self.pid,)

    @property
    def state(self) -> ChildState:
        return self._state

    @property
    def alive(self) -> bool:
        """False once the process has ended or is being ended."""
        with self._lock:
            return self._report is None and not self._process.watch.has_ended()

    @property
    def log_path(self) -> Path:
        """What was printed outside of jobs: import, load, warm-up."""
        return self._process.log.path

    @property
    def has_memory_group(self) -> bool:
        return self._process.has_memory_group

    def footprint(self) -> Footprint:
        """Measure the host memory of the child and all that it has started; nothing but the peak once it is gone."""
        with self._lock:
            return self._process.footprint(ended=self._report is not None)

    def load(self, timeout_s: float | None) -> dict[str, float]:
        """Wait until the child is ready; say what took how long: `spawn_s`, `import_s`, `load_s`, `warmup_s`.

        Raises EntrypointFailed, with the last lines of the log; the child is gone then.
        """
        with self._busy:
            return self._load(timeout_s)

    def reload(self, spec: ChildSpec, timeout_s: float | None) -> float:
        """Have the model take up what `ctx` shows by `spec`, between two jobs; returns the seconds that it took.

        Whose `reload` raises is given its old `ctx` in the same way.

        Raises:
            EntrypointFailed: it serves on as it was or, where the way back failed as well, is gone: see `alive`.
            ChildGone: it had ended before.
        """
        with self._busy:
            if not self.is_usable():
                self._finish()
                raise ChildGone(f"{self.spec.name} had ended before it was to become {spec.name}")
            return self._reload(spec, timeout_s)

    def run(
        self,
        request: JobRequest,
        *,
        timeout_s: float | None,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> ChildOutcome:
        """Run one attempt at a stage to its end, whatever end that is.

        Raises ChildGone where the child had ended before, and OSError where the scratch folder cannot be made (a full
        disk); the job was not begun then.
        """
        follow = Follow(request, timeout_s, cancel_grace_s, on_progress, on_partial)
        with self._busy:
            if not self.is_usable():
                self._finish()
                raise ChildGone(f"{self.spec.name} had ended before job {request.job_id} was handed to it")
            return self._run(follow)

    def run_batch(
        self,
        requests: Sequence[JobRequest],
        *,
        timeout_s: float | None,
        on_progress: Sequence[OnProgress | None] = (),
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> list[ChildOutcome]:
        """Run attempts at one stage of several jobs in one call. What fails the call fails them all.

        Raises: as `run`.
        """
        tells = list(on_progress) or [None] * len(requests)
        follows = [
            Follow(request, timeout_s, cancel_grace_s, tell, None)
            for request, tell in zip(requests, tells, strict=True)
        ]
        with self._busy:
            if not self.is_usable():
                self._finish()
                raise ChildGone(f"{self.spec.name} had ended before {len(requests)} jobs were handed to it")
            return self._run_batch(follows)

    def cancel(self, job_id: str | None = None) -> None:
        """Cancel the job that runs now, if any; `run` returns when the model gives in or its grace is over.

        Of a batch only the job that is named, if one is; the grace begins with the cancellation of the last of them.
        """
        with self._lock:
            wanted = {own: nonce for own, nonce in self._nonces.items() if job_id in (None, own)}
            for own, nonce in wanted.items():
                if self._report is None:
                    del self._nonces[own]
                    self._process.tell({"t": "cancel", "n": nonce})
            if wanted and not self._nonces and self._cancel_asked_at is None:
                self._cancel_asked_at = time.monotonic()
                self._process.watch.wake()

    def dump_stacks(self) -> None:
        """Write the stacks of all its threads to the log that is current, and wait a little for them."""
        with self._lock:
            possible = self._up and self._report is None
        if possible:
            self._process.dump_stacks(STACKS_S)

    def stop(self, grace_s: float = 10.0, *, terminate_s: float = TERMINATE_S) -> StopReport:
        """End the child and all that it started: let it finish for `grace_s`, then SIGTERM, then SIGKILL.

        A job that does not end within the grace is PREEMPTED. May be called at any time, from any thread, more than
        once; returns when everything is gone.
        """
        with self._lock:
            self._stop_asked = True
            idle_or_busy = self._state in (ChildState.READY, ChildState.RUNNING)
            if idle_or_busy:
                self._move(ChildState.DRAINING)
        return self._finish(polite_s=grace_s if idle_or_busy else 0.0, terminate_s=terminate_s)

    def _load(self, timeout_s: float | None) -> dict[str, float]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        phases: dict[str, float] = {}
        try:
            while not self._starts(self._next(self._nonce, deadline), phases):
                if deadline is not None and time.monotonic() >= deadline:
                    self.dump_stacks()
                    raise _UnfitError(f"it was not ready after {timeout_s:g} s")
        except _LostError as lost:
            self.failed_at, self.died = time.monotonic(), not isinstance(lost, _UnfitError)
            self._finish()
            how = "" if isinstance(lost, _UnfitError) else f" ({self.how_it_ended()})"
            why = f"{self._ended_for_memory()}; {self._host_figures}" if self._killed_for_memory else ""
            self.failure = "; ".join(part for part in (f"{lost}{how}", why) if part)
            where = "" if self.spec.live_output or self.spec.terminal else f"; its output is in {self.log_path}"
            raise EntrypointFailed(
                f"{self.spec.name} cannot start: {self.failure}{where}", log=self._process.last_output
            ) from None
        except BaseException:
            self._finish()
            raise
        return phases

    def _starts(self, message: Message | None, phases: dict[str, float]) -> bool:
        """Take one message of the start; True once the child is ready."""
        kind = message["t"] if message else None
        if message is None:
            return False
        if kind == "up":
            self._up = True
            phases["spawn_s"] = time.monotonic() - self._process.began
        elif kind == "imported":
            phases["import_s"] = _seconds(message)
            self._move(ChildState.LOADING)
            return self.spec.import_only
        elif kind == "loaded":
            phases["load_s"] = _seconds(message)
            self._move(ChildState.WARMING)
        elif kind == "ready":
            phases["warmup_s"] = _seconds(message)
            self.reloads = message.get("reloads") is True
            self._move(ChildState.READY)
            return True
        elif kind == "unfit":
            raise _UnfitError(f"{message.get('phase')} failed: {outcome.failure_text(message)}")
        else:
            raise _LostError(f"it sent {kind!r} instead of getting ready")
        return False

    def _reload(self, spec: ChildSpec, timeout_s: float | None) -> float:
        old, problem = self.spec, ""
        with self._lock:
            if not self._stop_asked:
                self._move(ChildState.RELOADING)
        try:
            for wanted in (spec, old):
                answer = self._ask_to_reload(wanted, timeout_s)
                if answer["t"] == "reloaded":
                    break
                failed = f"{wanted.name} did not reload: {outcome.failure_text(answer)}"
                problem = f"{problem}; and {failed}" if problem else failed
            else:
                raise _UnfitError(problem)
        except (_LostError, OSError) as lost:
            self._finish()
            told = problem if isinstance(lost, _UnfitError) else f"{spec.name} did not reload: {lost}"
            raise EntrypointFailed(
                f"{told} ({self.how_it_ended()}); its output is in {self.log_path}", log=self._process.last_output
            ) from None
        except BaseException:
            self._finish()
            raise
        with self._lock:
            if self._state is ChildState.RELOADING:
                self._move(ChildState.READY)
        if problem:
            raise EntrypointFailed(f"{problem}; {old.name} serves on; see {self.log_path}")
        self.spec = spec
        return _seconds(answer)

    def _ask_to_reload(self, spec: ChildSpec, timeout_s: float | None) -> Message:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        nonce = secrets.token_hex(8)
        with self._lock:
            if self._stop_asked:
                raise _LostError("it was asked to stop")
        self._process.channel.send(reload_message(spec, self._process.scratch, nonce))
        while deadline is None or time.monotonic() < deadline:
            answer = self._next(nonce, deadline)
            if answer is None:
                continue
            if answer["t"] not in ("reloaded", "unfit"):
                raise _LostError(f"it sent {answer['t']!r} instead of reloading")
            return answer
        self.dump_stacks()
        raise _LostError(f"it had not reloaded after {timeout_s:g} s")

    def _run(self, follow: Follow) -> ChildOutcome:
        request = follow.request
        scratch = request.scratch or self._process.scratch
        nonce = secrets.token_hex(8)
        message = run_message(request, scratch, nonce)
        log = self._process.open_log(request.log_path)
        try:
            self._process.drain.switch(log)
            self._process.note_memory_kills()
            with self._lock:
                if self._stop_asked:
                    raise _LostError("it was asked to stop")
                self._move(ChildState.RUNNING)
                self._nonces, self._cancel_asked_at = {request.job_id: nonce}, None
            self._process.channel.send(message)
            if self.when_running is not None:
                self.when_running()
            while True:
                ended = self._ends(self._next(nonce, follow.earliest(self._cancel_asked_at)), follow)
                if ended is not None:
                    return ended
                overdue = follow.overdue(self._cancel_asked_at)
                if overdue is not None:
                    return self._kill(*overdue, follow)
        except (_LostError, OSError) as lost:
            return self._lose(str(lost), follow)
        except BaseException:
            self._finish()
            raise
        finally:
            self._leave_job(log, scratch)

    def _run_batch(self, follows: Sequence[Follow]) -> list[ChildOutcome]:
        """As `_run`, for jobs that share a call, a scratch folder and what they print."""
        first, scratch = follows[0], follows[0].request.scratch or self._process.scratch
        nonce = secrets.token_hex(8)
        each = {secrets.token_hex(8): follow for follow in follows}
        message = batch_message([follow.request for follow in follows], scratch, nonce, list(each))
        log = self._process.open_log(first.request.log_path)
        try:
            self._process.drain.switch(log)
            self._process.note_memory_kills()
            with self._lock:
                if self._stop_asked:
                    raise _LostError("it was asked to stop")
                self._move(ChildState.RUNNING)
                self._nonces = {follow.request.job_id: own for own, follow in each.items()}
                self._cancel_asked_at = None
            self._process.channel.send(message)
            if self.when_running is not None:
                self.when_running()
            while True:
                news = self._next(frozenset({nonce, *each}), first.earliest(self._cancel_asked_at))
                if news is not None and news["n"] == nonce:
                    if self.spec.rank and news["t"] == "done":
                        return [ChildOutcome(Cause.SUCCEEDED, runtime_s=first.runtime_s()) for _ in follows]
                    killed = self._process.killed_for_memory()
                    return outcome.of_batch(news, [f.request.output_dir for f in follows], first.runtime_s(), killed)
                if news is not None:
                    self._ends(news, each[news["n"]])
                overdue = first.overdue(self._cancel_asked_at)
                if overdue is not None:
                    return [self._kill(*overdue, follow) for follow in follows]
        except (_LostError, OSError) as lost:
            return [self._lose(str(lost), follow) for follow in follows]
        except BaseException:
            self._finish()
            raise
        finally:
            self._leave_job(log, scratch)
            _share(first.request.log_path, [follow.request.log_path for follow in follows[1:]])

    def _ends(self, message: Message | None, follow: Follow) -> ChildOutcome | None:
        """Take one message of a job; its outcome once it is over."""
        if message is None:
            return None
        match message["t"]:
            case "done" if self.spec.rank:
                memory = outcome.peaks(message)
                return ChildOutcome(Cause.SUCCEEDED, runtime_s=follow.runtime_s(), memory=memory)
            case "done":
                return outcome.succeeded(message, follow.request.output_dir, follow.runtime_s())
            case "failed":
                killed, limited = self._process.killed_for_memory(), self._has_limit
                return outcome.failed(
                    message,
                    follow.runtime_s(),
                    out_of_memory=killed,
                    limited=limited,
                    host_figures=self._process.host_figures,
                )
            case "progress":
                if follow.on_progress is not None:
                    follow.on_progress(*outcome.progress(message))
            case "partial":
                if follow.on_partial is not None:
                    follow.on_partial(message.get("value"))
            case "saved":
                state = follow.request.state
                if state is not None and state.told is not None:
                    state.told(_saved(message))
            case other:
                raise _LostError(f"it sent {other!r} during a job")
        return None

    def _next(self, nonce: str | frozenset[str], deadline: float | None) -> Message | None:
        """Wait for one message. None: the deadline is over, or somebody asked for something. Raises _LostError."""
        process = self._process
        if self._report is not None:
            raise _LostError("it was stopped")
        if not self._inbox:
            if not process.watch.wait(deadline):
                return None
            ended = process.watch.has_ended()
            try:
                self._inbox.extend(process.channel.arrived())
                while ended and not process.channel.ended:
                    # What it said before its end still counts; a fork of it may hold the socket open.
                    said = process.channel.arrived()
                    if not said:
                        break
                    self._inbox.extend(said)
            except BadFrame as bad:
                raise _LostError(f"something wrote {bad} to its control channel") from None
            if not self._inbox:
                if ended:
                    raise _LostError("it ended without an answer")
                if process.channel.ended:
                    # An ending process closes its descriptors a little before it is gone.
                    ended = process.watch.wait_end(CLOSED_S)
                    what = "it ended without an answer" if ended else "its control channel was closed"
                    raise _LostError(what)
                return None
        message = self._inbox.popleft()
        if message.get("n") not in (nonce if isinstance(nonce, frozenset) else (nonce,)):
            raise _LostError("something wrote a message that is not its own to its control channel")
        return message

    def is_usable(self) -> bool:
        """True where the child is ready, alive and has said nothing that nobody asked for."""
        with self._lock:
            if self._state is not ChildState.READY or self._process.watch.has_ended():
                return False
        try:
            return not self._process.channel.arrived() and not self._process.channel.ended
        except BadFrame:
            return False

    def _kill(self, cause: Cause, text: str, follow: Follow) -> ChildOutcome:
        self.dump_stacks()
        self._finish()
        return outcome.ended(cause, f"{text}; the stacks of its threads are in the log", follow.runtime_s())

    def _lose(self, text: str, follow: Follow) -> ChildOutcome:
        self._finish()
        how = self.how_it_ended()
        if self._killed_for_memory:
            cause, text = Cause.OUT_OF_MEMORY, self._ended_for_memory()
        elif self._stop_asked:
            cause, text = Cause.PREEMPTED, "the worker stopped the child"
        elif self._cancel_asked_at is not None:
            cause, text = Cause.CANCELLED, "cancelled"
        else:
            cause = Cause.CRASH
        told = f"{text} ({how})"
        if cause is not Cause.OUT_OF_MEMORY:
            return outcome.ended(cause, told, follow.runtime_s())
        ended = outcome.ended(cause, outcome.with_figures(told, self._host_figures), follow.runtime_s())
        return replace(ended, memory=MemoryPeaks(lacked=outcome.lacked_on_host(self._has_limit)))

    @property
    def _has_limit(self) -> bool:
        """Whether the kernel ends it at a limit of its own, long before the box lacks memory."""
        return self.has_memory_group and self.spec.memory_limit_bytes is not None

    def how_it_ended(self) -> str:
        """Say how its process ended, once it has."""
        unknown = "; the kernel here does not say whether for want of memory" if self._process.unexplained() else ""
        return f"its process {self._process.how_it_ended()}{unknown}"

    def _ended_for_memory(self) -> str:
        """Say no more than what is known: without a memory cgroup of its own the kernel counts all kills together."""
        if self.has_memory_group:
            return "the kernel ended it for want of memory"
        return "it was killed while the kernel ended processes for want of memory"

    def _finish(self, *, polite_s: float = 0.0, terminate_s: float = 0.0) -> StopReport:
        with self._ending:
            if self._report is None:
                report = self._process.end(polite_s=polite_s, terminate_s=terminate_s)
                self._killed_for_memory = self._process.killed_for_memory()
                if self._killed_for_memory:
                    self._host_figures = self._process.host_figures()
                with self._lock:
                    self._move(ChildState.STOPPING)
                    self._report = report
                self._process.watch.wake()
            report = self._report
        # Whoever waits on the descriptors leaves first: the process is gone, so that is now.
        with self._busy, self._lock:
            if not self._let_go:
                self._let_go = True
                self._process.let_go(report.gone)
        return report

    def _leave_job(self, log: Log, scratch: Path) -> None:
        with self._lock:
            self._nonces = {}
            if self._state is ChildState.RUNNING:
                self._move(ChildState.READY)
        self._process.drain.switch(None)
        log.close()
        empty(scratch)

    def _move(self, new: ChildState) -> None:
        if self._state is not new:
            if not may_move(self._state, new):
                raise RuntimeError(f"child {self.spec.name} cannot go from {self._state} to {new}")
            self._state = new


def _share(log: Path, others: Sequence[Path]) -> None:
    """What a batch printed belongs to each of its jobs."""
    for other in others:
        with suppress(OSError):
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, other)


def _saved(message: Message) -> SavedState:
    try:
        return outcome.saved(message)
    except (TypeError, ValueError):
        raise _LostError("it sent what is no state") from None


def _seconds(message: Message) -> float:
    value = message.get("seconds")
    return float(value) if isinstance(value, (int, float)) else 0.0
