"""Kill and stop workers and children at random moments: each job ends once, and no orphan holds a slot."""

import fcntl
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from modelrepo.errors import StaleFence
from modelrepo_runtime.jobs import Cause, Outcome, Status
from modelrepo_runtime.queue.port import JobFilter, Session
from modelrepo_runtime.supervision.record import end_recorded_group
from modelrepo_runtime.testing.live import LiveBox, LiveWorker, wait_gone
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.locks import SlotLocks

MOMENTS = 50 if os.environ.get("MODELREPO_ACCEPTANCE") == "full" else 3
# A quarter of the embedded times: leases of 1.5 s. The breaker has a test of its own and would only slow this one.
TIMING = replace(Timing.embedded().scaled(0.25), cordon_first_s=0.1, cordon_longest_s=0.2)
QUEUED = 6
# A moment falls anywhere in the life of a few jobs.
SPREAD_S = 0.3

# The second stage is there so that a job is also caught between two of its claims; a fork keeps what it inherits open.
CODE = """
import os, time

class Model:
    def load(self, ctx):
        if os.fork() == 0:
            time.sleep(3600)
            os._exit(0)

    def prepare(self, job):
        time.sleep(0.02)

    def run(self, job):
        for step in range(5):
            time.sleep(0.01)
            job.progress(step / 5)
        with open(job.output("out"), "w") as file:
            file.write(job.id)
"""
STAGES = "stages: [{name: prepare, on: cpu, timeout: 2s}, {name: run, on: gpu, timeout: 2s}]\n"


class Ordeal:
    """A box with two workers, jobs that are always queued, and a hand that kills."""

    def __init__(self, box: LiveBox, seed: int) -> None:
        self.box, self.chance = box, random.Random(seed)
        self.jobs: list[str] = []
        self.workers = [box.worker(name, cpu_slots=1) for name in ("one", "two")]
        self._stopped = threading.Event()
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def _feed(self) -> None:
        waiting = JobFilter(status=Status.QUEUED, limit=QUEUED)
        while not self._stopped.wait(0.02):
            for _ in range(QUEUED - len(self.box.queue.list(waiting))):
                self.jobs.append(self.box.client.submit("live")["id"])

    def finish(self) -> None:
        """Feed no more, and see every job end."""
        self._stopped.set()
        self._feeder.join()
        self.box.until(lambda: all(self.box.queue.get(job).status.ended for job in self.jobs), "all jobs have ended")

    def victim(self) -> LiveWorker:
        """Choose a worker that serves, at a moment that nobody knows beforehand."""
        worker = self.chance.choice(self.workers)
        self.serves(worker)
        self._stopped.wait(self.chance.uniform(0, SPREAD_S))
        return worker

    def serves(self, worker: LiveWorker) -> None:
        self.box.until(lambda: self.child(worker) is not None, f"{worker.name} serves")

    def child(self, worker: LiveWorker) -> int | None:
        """Return the pid of the worker's child, once its newest report shows one that lives."""
        for report, slot in self.box.slots(worker.name):
            pid = slot.extra.get("pid")
            if report.info.pid == worker.pid and slot.version and pid is not None and psutil.pid_exists(pid):
                return int(pid)
        return None

    def replace(self, worker: LiveWorker) -> None:
        """Start a worker in the place of one that was killed: it must get its slot, whatever was left there."""
        self.workers[self.workers.index(worker)] = fresh = self.box.again(worker)
        self.serves(fresh)

    def session(self, worker: LiveWorker) -> str:
        return next(report.session for report, _ in self.box.slots(worker.name) if report.info.pid == worker.pid)


def kill_worker(ordeal: Ordeal) -> None:
    worker = ordeal.victim()
    children = worker.children()
    worker.send(signal.SIGKILL)
    worker.wait()
    ordeal.replace(worker)
    assert not wait_gone(children), "a killed worker's children outlived its successor's start"


def stop_worker(ordeal: Ordeal) -> None:
    """Stop a worker past its lease, and wake it: what it finishes then is stale."""
    worker = ordeal.victim()
    session = ordeal.session(worker)
    worker.send(signal.SIGSTOP)
    ordeal.box.until(lambda: is_stopped(worker.pid), "every thread of the worker has stopped")
    # Stopped inside a commit it holds the queue's own lock: then all wait for it, and nobody is reaped.
    if queue_moves(ordeal.box):
        # Sessions that hold nothing are not among the beats that reapers watch.
        ordeal.box.until(lambda: session not in ordeal.box.queue.beats(), "what the stopped worker held is taken back")
    worker.send(signal.SIGCONT)
    ordeal.serves(worker)


def is_stopped(pid: int) -> bool:
    """Tell whether no thread runs on: one inside a system call stops only when that returns, perhaps with a lock."""
    states = [task.read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def queue_moves(box: LiveBox) -> bool:
    """Tell whether the queue's locks come free, again and again, within a lease."""
    end = time.monotonic() + TIMING.lease_s * 1.5
    for name in ("next", "main"):
        with (box.folder / f"queue.db.{name}").open() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        return False
                    time.sleep(0.001)
    return True


def kill_child(ordeal: Ordeal) -> None:
    worker = ordeal.victim()
    signal_child(ordeal, worker, signal.SIGKILL)


def stop_child(ordeal: Ordeal) -> None:
    """A stopped child is noticed by the time limit of the job that it has, or gets."""
    worker = ordeal.victim()
    signal_child(ordeal, worker, signal.SIGSTOP)


def signal_child(ordeal: Ordeal, worker: LiveWorker, number: signal.Signals) -> None:
    pid = ordeal.child(worker)
    if pid is None:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    ordeal.box.until(lambda: ordeal.child(worker) not in (None, pid), "another child serves")


@pytest.mark.parametrize(
    "strike", [kill_worker, stop_worker, kill_child, stop_child], ids=lambda strike: strike.__name__
)
@pytest.mark.timeout(1200)
def test_each_job_ends_once(tmp_path: Path, strike: object) -> None:
    assert callable(strike)
    with LiveBox(tmp_path, TIMING) as box:
        box.promote(box.push(CODE, yaml=STAGES))
        ordeal = Ordeal(box, seed=20)
        try:
            for _ in range(MOMENTS):
                strike(ordeal)
        finally:
            ordeal.finish()
        ends_once(ordeal)
        strikes_that_cost_leases = (kill_worker, stop_worker)
        if strike in strikes_that_cost_leases:
            assert any(row.cause == "worker_lost" for row in box.queue.history()), "no moment fell into a job"
        everything = [pid for worker in ordeal.workers for pid in worker.children()]
        for worker in ordeal.workers:
            assert worker.stop() == 0, worker.text()
        assert not wait_gone(everything), "an orphan is left"
        for worker in ordeal.workers:
            locks = SlotLocks(worker.cache / "worker" / "slots" / "cpu0", "cpu0")
            assert locks.acquire(end_recorded_group) == ()
            locks.release()


def ends_once(ordeal: Ordeal) -> None:
    """Every job has one end, that of one accepted attempt; whoever comes late is refused and changes nothing."""
    queue = ordeal.box.queue
    rows = queue.history()
    finals = Counter(
        row.job_id for row in rows if row.event == "attempt" and row.cause == "succeeded" and row.stage == "run"
    )
    for job in (queue.get(job) for job in ordeal.jobs):
        if job.status is Status.SUCCEEDED:
            assert finals[job.id] == 1
            assert [output.name for output in job.outputs] == ["out"]
        else:
            # Only the table of attempts may end it otherwise: three different crashes, hangs or losses of one job.
            assert job.status is Status.FAILED
            assert finals[job.id] == 0
    failed = sum(queue.get(job).status is Status.FAILED for job in ordeal.jobs)
    assert failed <= MOMENTS // 10
    for row in rows:
        if row.cause == "worker_lost":
            assert row.fence is not None
            before = queue.get(row.job_id)
            with pytest.raises(StaleFence):
                queue.finish(Session(str(row.session)), row.job_id, row.fence, Outcome(Cause.SUCCEEDED, "stale"))
            assert queue.get(row.job_id) == before
