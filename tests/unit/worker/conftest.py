"""A slot with everything around it real but its child, its versions and its memory."""

import io
import itertools
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelrepo.contract import AcceleratorFacts, parse_spec
from modelrepo.errors import EntrypointFailed, Stopped
from modelrepo.progress import Progress
from modelrepo.versions.version import LocalVersion, Version
from modelrepo_runtime.accelerators import SlotLayout
from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Cause, Fence, Job, JobError, OutputFile, StageNeed, Submission
from modelrepo_runtime.pool.checkpoints import Pooled
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import BeatReply, SlotReport, WorkerInfo
from modelrepo_runtime.supervision.spec import ChildOutcome, ChildSpec, JobRequest
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.attempt import Attempts
from modelrepo_runtime.worker.claiming import Claimer
from modelrepo_runtime.worker.footprint import Learnt
from modelrepo_runtime.worker.handover import Handovers
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.memory import Reservations
from modelrepo_runtime.worker.preparing import SlotBox, Stop
from modelrepo_runtime.worker.serving import SlotParts
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.slot import Slot
from modelrepo_runtime.worker.slot_threads import SlotThreads
from modelrepo_runtime.worker.swap_plan import GIB, Room
from modelrepo_runtime.worker.target import Target

LIMIT_S = 20.0
TIMING = replace(Timing.embedded().scaled(0.2), cordon_first_s=0.2, cordon_longest_s=2.0)

Behaviour = Callable[["FakeChild", JobRequest], ChildOutcome]


def succeed(child: "FakeChild", request: JobRequest) -> ChildOutcome:
    return ChildOutcome(Cause.SUCCEEDED, {"version": child.spec.version, "stage": request.stage})


def fail(cause: Cause) -> Behaviour:
    def run(child: "FakeChild", request: JobRequest) -> ChildOutcome:
        child.alive = child.alive and cause not in (Cause.CRASH, Cause.HANG)
        return ChildOutcome(cause, error=JobError(cause.value, "as told"))

    return run


class FakeChild:
    """A child whose jobs do what the test says; `gate` holds a job, or the loading, until it is let go."""

    _pids = itertools.count(100_000)

    def __init__(self, spec: ChildSpec, plant: "Plant") -> None:
        self.spec, self.plant = spec, plant
        self.pid, self.alive, self.state, self.has_memory_group = next(self._pids), True, "starting", False
        self.log_path = spec.folder / "start.log"
        self.stopped = threading.Event()
        self.cancelled = threading.Event()
        self.running = threading.Event()
        self.stacks = 0
        self.reloads = spec.version in plant.reloading

    def load(self, timeout_s: float | None) -> dict[str, float]:
        self.state = "loading"
        gate = self.plant.load_gates.get(self.spec.version)
        while gate is not None and not gate.wait(0.01):
            if self.stopped.is_set():
                break
        problem = self.plant.unfit.get(self.spec.version)
        if problem is not None or self.stopped.is_set():
            self.alive = False
            raise EntrypointFailed(problem or "stopped while it loaded")
        self.state = "ready"
        self.plant.ready.put(self)
        return {"spawn_s": 0.0, "import_s": 0.0, "load_s": 0.0, "warmup_s": 0.0}

    def run(
        self, request: JobRequest, *, timeout_s: float | None, on_progress: Any = None, cancel_grace_s: float = 30.0
    ) -> ChildOutcome:
        self.running.set()
        self.cancelled.clear()
        self.plant.ran.append((request.job_id, self.spec.version, request.stage))
        try:
            gate = self.plant.gates.get(request.inputs.get("gate", ""))
            while gate is not None and not gate.wait(0.01):
                if self.cancelled.is_set():
                    return ChildOutcome(Cause.CANCELLED)
                if self.stopped.is_set():
                    return ChildOutcome(Cause.PREEMPTED)
            return self.plant.behaviour(self, request)
        finally:
            self.running.clear()

    def run_batch(
        self, requests: Any, *, timeout_s: float | None, on_progress: Any = (), cancel_grace_s: float = 30.0
    ) -> list[ChildOutcome]:
        self.plant.batches.append([request.job_id for request in requests])
        if any(request.inputs.get("bad") for request in requests):
            return [ChildOutcome(Cause.EXCEPTION, error=JobError("exception", "a bad one")) for _ in requests]
        return [self.run(request, timeout_s=timeout_s) for request in requests]

    def reload(self, spec: ChildSpec, timeout_s: float | None) -> float:
        problem = self.plant.unfit.get(spec.version)
        self.plant.reloaded.append((self.spec.version, spec.version))
        if problem is not None:
            self.alive = spec.version not in self.plant.no_way_back
            raise EntrypointFailed(problem)
        self.spec = spec
        return 0.01

    def cancel(self, job_id: str | None = None) -> None:
        self.cancelled.set()

    def dump_stacks(self) -> None:
        self.stacks += 1

    def footprint(self) -> Any:
        return SimpleNamespace(own_bytes=self.plant.rss_bytes)

    def stop(self, grace_s: float = 0.0) -> None:
        self.alive = False
        self.stopped.set()


@dataclass
class Plant:
    """What the fakes do, as the test says."""

    behaviour: Behaviour = succeed
    unfit: dict[str, str] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    load_gates: dict[str, threading.Event] = field(default_factory=dict)
    children: list[FakeChild] = field(default_factory=list)
    ran: list[tuple[str, str, str]] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    ready: "queues.SimpleQueue[FakeChild]" = field(default_factory=queues.SimpleQueue)
    yaml: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    build_errors: dict[str, Exception] = field(default_factory=dict)
    pool_problems: dict[str, str] = field(default_factory=dict)
    build_gates: dict[str, threading.Event] = field(default_factory=dict)
    start_errors: list[Exception] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    fetch_bytes: tuple[int, int] | None = None
    fetch_gates: dict[str, threading.Event] = field(default_factory=dict)
    here: set[str] = field(default_factory=set)
    reloading: set[str] = field(default_factory=set)
    reloaded: list[tuple[str, str]] = field(default_factory=list)
    no_way_back: set[str] = field(default_factory=set)
    host: Room = field(default_factory=lambda: Room(64 * GIB, 64 * GIB))
    device: Room | None = None
    rss_bytes: int = 100 << 20
    most_alive: int = 0

    def start_child(self, spec: ChildSpec) -> FakeChild:
        if self.start_errors:
            raise self.start_errors.pop()
        child = FakeChild(spec, self)
        self.children.append(child)
        self.most_alive = max(self.most_alive, sum(one.alive for one in self.children))
        return child

    def version(self, version: str) -> Version:
        text = "contract: 1\nname: m\nentrypoint: model:Model\n" + self.yaml.get(version, "")
        manifest: Any = SimpleNamespace(environment=SimpleNamespace(digest="e"), checkpoints={}, code=())
        return Version("m", version, f"{version:0>64}", manifest, parse_spec(text))

    # The Source port.

    def resolve(self, model: str, version: str) -> Version:
        if version in self.errors:
            raise self.errors[version]
        return self.version(version)

    def is_here(self, version: Version, checkpoints: frozenset[str] | None, extra: str | None) -> bool:
        return version.version in self.here

    def fetch(
        self, version: Version, checkpoints: frozenset[str] | None, stop: Stop, progress: Progress | None = None
    ) -> LocalVersion:
        self.fetched.append(version.version)
        if progress is not None and self.fetch_bytes is not None:
            progress("fetch", *self.fetch_bytes)
        gate = self.fetch_gates.get(version.version)
        while gate is not None and not gate.wait(0.01):
            if stop():
                raise Stopped("nobody wants it any more")
        return LocalVersion(version, Path("/nowhere"), Path("/nowhere/code"), {})

    def build(self, version: Version, extra: str | None, accelerator: AcceleratorFacts, stop: Stop) -> Path:
        gate = self.build_gates.get(version.version)
        while gate is not None and not gate.wait(0.01):
            if stop():
                raise Stopped("nobody wants it any more")
        if version.version in self.build_errors:
            raise self.build_errors[version.version]
        return Path("/nowhere/environment")

    def pool(self, local: LocalVersion, stop: Stop) -> Pooled:
        return Pooled(problem=self.pool_problems.get(local.version.version))


class FakeFiles:
    """A JobStore that keeps names only."""

    def fetch(self, key: str, target: Path) -> None:
        target.write_text(key)

    def put_output(
        self, job_id: str, created_at: float, fence: Fence, name: str, path: Path, content_type: str | None = None
    ) -> OutputFile:
        return OutputFile(name, f"{job_id}/{fence}/{name}", 1, content_type or "text/plain")

    def put_log(self, job_id: str, created_at: float, fence: Fence, path: Path) -> str:
        return f"{job_id}/{fence}/log"


class Bench:
    """One slot `s0` of worker `w`, serving model `m` from a queue in memory."""

    def __init__(self, folder: Path) -> None:
        self.plant, self.log = Plant(), io.StringIO()
        self.journal = Journal(self.log)
        self.queue = MemoryQueue(f"memory://{folder.name}", TIMING)
        self.slots: list[Slot] = []
        self.threads: list[SlotThreads] = []
        self.generation = 0
        self.fleet_errors: list[Exception] = []
        self.at_edge: Callable[[], None] = lambda: None
        self.heard: Callable[[BeatReply], None] = lambda _: None
        self.cordon: Callable[[str], str | None] = lambda _: None
        self.broken: Callable[[str], bool] = lambda _: False
        self.look_at: Callable[[str], None] = lambda _: None
        self.tight: str | None = None
        self.dropped: list[str] = []
        info = WorkerInfo("w", "box", 1, slots=("s0", "s1"))
        self.session = WorkerSession(
            self.queue,
            info,
            TIMING,
            lambda: [slot.report() for slot in self.slots],
            self.journal,
            lambda reply: self.heard(reply),
        )
        self.claimer = Claimer(self.session, self.journal)
        self._folder = folder
        self.session.start()
        self.claimer.start()

    def reports(self) -> list[SlotReport]:
        return [slot.report() for slot in self.slots]

    def slot(self, name: str = "s0", only: str | None = None, room: MemoryRoom = ANY_ROOM) -> Slot:
        layout = SlotLayout(name, ())
        box = SlotBox(layout, AcceleratorFacts("cpu"), False, None, {}, only)
        folder = self._folder / name
        parts = SlotParts(
            name=name,
            layout=layout,
            folder=folder,
            box=box,
            timing=TIMING,
            journal=self.journal,
            session=self.session,
            claimer=self.claimer,
            attempts=Attempts(
                folder / "attempts",
                Handovers(self._folder / "handovers", FakeFiles()),
                FakeFiles(),
                TIMING,
                self.journal,
                room=room,
            ),
            room=room,
            source=self.plant,
            learnt=Learnt(),
            reservations=Reservations(),
            start_child=self.plant.start_child,
            host_room=lambda: self.plant.host,
            device_room=lambda: self.plant.device,
            slots_total=self._slots_total,
            look_again=lambda model: self.at_edge(),
            cordon=lambda: self.cordon(name),
            drop_spare=lambda: self.dropped.append(name),
            tight=lambda: self.tight,
            device_broken=lambda: self.broken(name),
            look_at_devices=lambda: self.look_at(name),
        )
        slot = Slot(parts, "m")
        threads = SlotThreads(slot)
        self.slots.append(slot)
        self.threads.append(threads)
        threads.start()
        return slot

    def _slots_total(self, model: str) -> int:
        if self.fleet_errors:
            raise self.fleet_errors.pop()
        return len(self.slots)

    def fails_by(self, cause: Cause) -> None:
        """Let every job end like this from now on."""
        self.plant.behaviour = fail(cause)

    def succeeds(self) -> None:
        self.plant.behaviour = succeed

    def tighten(self, reason: str | None) -> None:
        """Let the box's memory be tight from now on, or no more."""
        self.tight = reason
        for slot in self.slots:
            slot.look_again()

    def left(self) -> bool:
        """Wait until the threads of every slot have left."""
        return all(threads.join(LIMIT_S) for threads in self.threads)

    def target(
        self, version: str, *, share: str = "10%", boxes: int = 32, end_running: bool = False, **config: Any
    ) -> Target:
        self.generation += 1
        target = Target("m", version, None, self.generation, config, share, end_running, max_fetching=boxes)
        for slot in self.slots:
            slot.set_target(target)
        return target

    def submit(self, *stages: str, **inputs: Any) -> str:
        needs = tuple(StageNeed(stage) for stage in stages or ("run",))
        return self.queue.submit(Submission("m", inputs, needs)).id

    def done(self, job_id: str) -> Job:
        """Wait for a job's end."""
        waiter = self.queue.waiter(jobs=[job_id])
        try:
            end = time.monotonic() + LIMIT_S
            while not (job := self.queue.get(job_id)).status.ended:
                self.queue.tend()
                assert time.monotonic() < end, f"job is still {job.status}; {self.log.getvalue()}"
                waiter.wait(0.05)
            return job
        finally:
            waiter.close()

    def until(self, slot: Slot, true: Callable[[Slot], bool]) -> None:
        """Wait until something holds of a slot."""
        with slot.changed:
            end = time.monotonic() + LIMIT_S
            while not true(slot):
                assert time.monotonic() < end, self.log.getvalue()
                slot.changed.wait(0.02)

    def serves(self, slot: Slot, version: str) -> None:
        self.until(slot, lambda slot: slot.serving is not None and slot.serving.prepared.version.version == version)

    def close(self) -> None:
        for gate in (*self.plant.gates.values(), *self.plant.load_gates.values()):
            gate.set()
        for slot in self.slots:
            slot.leave()
        self.claimer.stop()
        for threads in self.threads:
            assert threads.join(LIMIT_S), "a thread of the slot did not leave"
        self.session.stop()
        self.queue.close()
        assert not any(child.alive for child in self.plant.children), "a child was left behind"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
