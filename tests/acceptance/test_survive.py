"""Jobs that save their state lose no work but the last moments: to no child, worker, box, preemption or outage."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from modelrepo.pushing.push_options import PushOptions
from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.testing.live import LiveBox, LiveWorker
from modelrepo_runtime.timing import Timing

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
MOMENTS = 100 if FULL else 1
TIMING = replace(Timing.embedded().scaled(0.25), cordon_first_s=0.05, cordon_longest_s=0.1)
STEPS = 40
SPREAD_S = 0.6
AWAY_S = 0.5
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits-diffusion"

# Each step depends on the one before, so that a lost, doubled or damaged step shows in the result.
CHAIN = f"""
import hashlib, time

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        found = job.state
        step, value = (found["step"], found["value"]) if found else (0, str(job.inputs["seed"]).encode())
        began = step
        while step < {STEPS}:
            value = hashlib.sha256(value).digest()
            step += 1
            job.save_state({{"step": step, "value": value, "pad": bytes(100_000)}})
            job.progress(step / {STEPS})
            time.sleep(0.02)
        return {{"value": value.hex(), "began": began}}
"""
CHAIN_YAML = "inputs: {seed: {type: integer, default: 0}}\nstages: [{name: run, timeout: 1min}]\n"


def chained(seed: int) -> str:
    value = str(seed).encode()
    for _ in range(STEPS):
        value = hashlib.sha256(value).digest()
    return value.hex()


@dataclass
class Watched:
    """A job whose progress is looked at until it ends."""

    box: LiveBox
    job_id: str
    fell: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        highest, waiter = 0.0, self.box.queue.waiter(jobs=[self.job_id])
        while not (job := self.box.queue.get(self.job_id)).status.ended:
            shown = (job.progress or 0.0) if job.stage == self.stage(job) else highest
            if shown < highest:
                self.fell.append((highest, shown))
            highest = max(highest, shown)
            waiter.wait(0.05)
        waiter.close()

    def stage(self, job: Job) -> str | None:
        return job.stage if job.stage in ("run", "generate") else None

    def end(self) -> Job:
        self.box.until(lambda: self.box.queue.get(self.job_id).status.ended, f"{self.job_id} has ended")
        self._thread.join()
        return self.box.queue.get(self.job_id)


class Ordeal:
    """A box with one worker, that is replaced as often as it takes, and a hand that strikes."""

    def __init__(self, box: LiveBox, seed: int) -> None:
        self.box, self.chance = box, random.Random(seed)
        self.number = 0
        self.worker = self.start()

    def start(self) -> LiveWorker:
        """Start a worker on a box of its own."""
        self.number += 1
        return self.box.worker(f"box{self.number}", cpu_slots=1, state_memory=str(self.memory), grace="10")

    @property
    def memory(self) -> Path:
        return Path("/dev/shm") / f"modelrepo-test-{os.getpid()}-{self.box.folder.name}-{self.number}"

    def moment(self) -> None:
        """Wait for a moment in the life of the job that runs which nobody knows beforehand."""
        self.box.until(lambda: any(slot.job_id for _, slot in self.box.slots(self.worker.name)), "the job runs")
        threading.Event().wait(self.chance.uniform(0, SPREAD_S))

    def child(self) -> int | None:
        for report, slot in self.box.slots(self.worker.name):
            pid = slot.extra.get("pid")
            if report.info.pid == self.worker.pid and pid is not None and psutil.pid_exists(pid):
                return int(pid)
        return None

    def again(self) -> None:
        self.worker = self.box.again(self.worker)


def kill_child(ordeal: Ordeal) -> None:
    pid = ordeal.child()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def kill_worker(ordeal: Ordeal) -> None:
    ordeal.worker.send(signal.SIGKILL)
    ordeal.worker.wait()
    ordeal.again()


def lose_box(ordeal: Ordeal) -> None:
    """Everything of it is gone at once: processes, shared memory, disk."""
    processes = [ordeal.worker.pid, *ordeal.worker.children()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)  # so that none of them acts on another's end
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    ordeal.worker.wait()
    shutil.rmtree(ordeal.memory, ignore_errors=True)
    shutil.rmtree(ordeal.worker.cache / "worker", ignore_errors=True)
    ordeal.box.workers.remove(ordeal.worker)
    ordeal.worker = ordeal.start()


def preempt(number: signal.Signals) -> Callable[[Ordeal], None]:
    def strike(ordeal: Ordeal) -> None:
        ordeal.worker.send(number)
        assert ordeal.worker.wait() == 0, ordeal.worker.text()
        shutil.rmtree(ordeal.memory, ignore_errors=True)  # such a box is given away
        shutil.rmtree(ordeal.worker.cache / "worker", ignore_errors=True)
        ordeal.again()

    return strike


def queue_away(ordeal: Ordeal) -> None:
    """Nobody gets at the queue for a while, and the child dies before it is back."""
    with locked(ordeal.box.folder / "queue.db.next"), locked(ordeal.box.folder / "queue.db.main"):
        threading.Event().wait(AWAY_S)
        kill_child(ordeal)


def store_away(ordeal: Ordeal) -> None:
    """The place of the jobs' files is gone for a while."""
    files, away = ordeal.box.folder / "files", ordeal.box.folder / "away"
    files.rename(away)
    files.write_text("in the way")
    threading.Event().wait(AWAY_S)
    files.unlink()
    away.rename(files)
    kill_child(ordeal)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


STRIKES: dict[str, Callable[[Ordeal], None]] = {
    "kill_child": kill_child,
    "kill_worker": kill_worker,
    "lose_box": lose_box,
    "sigterm": preempt(signal.SIGTERM),
    "sigusr1": preempt(signal.SIGUSR1),
    "queue_away": queue_away,
    "store_away": store_away,
}


def ended_well(ordeal: Ordeal, watched: Watched) -> Job:
    """It succeeded, by one attempt that was accepted, and what was shown of it never went back."""
    job = watched.end()
    rows = [row for row in ordeal.box.queue.history(job.id) if row.event == "attempt"]
    assert job.status is Status.SUCCEEDED, (job, rows, ordeal.worker.text())
    assert sum(row.cause == "succeeded" and row.stage == job.stage for row in rows) == 1
    if (job.result or {}).get("began"):  # else it was lost before its first state had left the box
        assert not watched.fell, f"shown progress went back: {watched.fell}"
    return job


@pytest.mark.timeout(7200)
def test_a_job_goes_on_where_it_was(tmp_path: Path) -> None:
    with LiveBox(tmp_path, TIMING) as box:
        box.promote(box.push(CHAIN, yaml=CHAIN_YAML))
        ordeal = Ordeal(box, seed=30)
        resumed: dict[str, int] = dict.fromkeys(STRIKES, 0)
        for name, strike in STRIKES.items():  # a folder that is away counts as empty for whoever deletes: that one last
            if name == "store_away":
                no_files_left(box)
            for seed in range(MOMENTS):
                watched = Watched(box, box.client.submit("live", {"seed": seed})["id"])
                ordeal.moment()
                strike(ordeal)
                job = ended_well(ordeal, watched)
                assert job.result["value"] == chained(seed), f"{name}: the resumed work differs"
                resumed[name] += job.result["began"] > 0
        assert ordeal.worker.stop() == 0, ordeal.worker.text()
        assert not ordeal.memory.exists(), list(ordeal.memory.rglob("*"))
    # A moment may fall before the first state or after the last step; most do not.
    assert sum(resumed.values()) >= len(STRIKES) * MOMENTS * 0.6, resumed


def no_files_left(box: LiveBox) -> None:
    """States of jobs that have ended are deleted from the store."""
    box.until(lambda: not list((box.folder / "files").rglob("state-*")), "the states of ended jobs are deleted")


DIGITS_STEPS = 600


@pytest.mark.full_counts
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", list(STRIKES))
def test_pictures_are_the_same_bit_by_bit(tmp_path: Path, name: str) -> None:
    with LiveBox(tmp_path, TIMING, model="digits-diffusion") as box:
        source = tmp_path / "digits-diffusion"
        shutil.copytree(EXAMPLE, source)
        version = box.repository.push(source, PushOptions(check="none", lock=True)).version
        box.promote(version)
        ordeal = Ordeal(box, seed=31)
        box.until(lambda: ordeal.child() is not None, "the model serves")
        for number in range(MOMENTS):
            inputs = {"digits": "0123456789" * 10, "seed": number, "steps": DIGITS_STEPS}
            alone = Watched(box, box.client.submit("digits-diffusion", inputs)["id"])
            wanted = picture(ended_well(ordeal, alone), box)
            watched = Watched(box, box.client.submit("digits-diffusion", inputs)["id"])
            ordeal.moment()
            STRIKES[name](ordeal)
            assert picture(ended_well(ordeal, watched), box) == wanted


def picture(job: Job, box: LiveBox) -> bytes:
    return (box.folder / "files" / job.outputs[0].key).read_bytes()
