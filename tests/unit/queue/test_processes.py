"""Several processes on one database: nothing lost, nothing twice, whoever is killed.

MODELREPO_TEST_ROUNDS repeats each test; the default is enough for every day.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import StageNeed, Status, Submission
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

ROUNDS = int(os.environ.get("MODELREPO_TEST_ROUNDS", "1"))
PROCESSES = 4
TIMING = Timing.embedded()

# Claims and finishes until nothing is left, or for ever where it is to be killed.
WORKER = """
import sys
from pathlib import Path
from modelrepo.errors import StaleFence
from modelrepo_runtime.jobs import Cause, Outcome
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

path, name, patience = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
queue = SqliteQueue(path)
session = queue.hello(WorkerInfo(name, name, 1))
waiter = queue.waiter(["m"])
print("ready", flush=True)
seq, idle = 0, 0
while idle < patience:
    seq += 1
    claims = queue.claim(session, seq, [Offer("0", "m", "v1", ("run",), limit=3)])
    if not claims:
        idle += 1
        waiter.wait(0.05)
    for claim in claims:
        idle = 0
        try:
            queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, claim.inputs["n"]))
        except StaleFence:
            print("stale", claim.job_id, flush=True)
waiter.close()
queue.close()
"""

SUBMITTER = """
import sys
from pathlib import Path
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

queue = SqliteQueue(Path(sys.argv[1]))
for n in range(int(sys.argv[3])):
    job = queue.submit(Submission("m", {"n": n}, (StageNeed("run"),)), idempotency_key=f"{sys.argv[2]}-{n}")
    print(job.id, flush=True)
queue.close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


# Waits for a line, then opens the queue that nobody has made yet.
MAKER = """
import sys
from pathlib import Path
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

print("ready", flush=True)
sys.stdin.readline()
queue = SqliteQueue(Path(sys.argv[1]))
print(queue.submit(Submission("m", {"n": 0}, (StageNeed("run"),)), idempotency_key=sys.argv[2]).id, flush=True)
queue.close()
"""


class Crew:
    """Processes that are ended with the test, whatever happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, program: str, name: str, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(self.path), name, str(number)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def crew(path: Path) -> Iterator[Crew]:
    SqliteQueue(path).close()
    with closing(Crew(path)) as made:
        yield made


def submit_many(queue: SqliteQueue, count: int) -> list[str]:
    return [queue.submit(Submission("m", {"n": n}, (StageNeed("run"),))).id for n in range(count)]


def ended_well(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def check_ends(queue: SqliteQueue, jobs: list[str]) -> None:
    """Every job succeeded by exactly one accepted finish, with the result that belongs to it."""
    done = {job.id: job for job in queue.list(JobFilter(limit=100_000))}
    assert set(done) == set(jobs)
    assert {job.status for job in done.values()} == {Status.SUCCEEDED}
    for job_id in jobs:
        assert done[job_id].result == queue.get(job_id).inputs["n"]
    accepted = Counter(row.job_id for row in queue.history() if row.event == "attempt" and row.cause == "succeeded")
    assert accepted == Counter(jobs)
    fences = [row.fence for row in queue.history() if row.event == "attempt"]
    assert len(set(fences)) == len(fences)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_processes_share_the_jobs_none_lost_none_twice(path: Path, crew: Crew, round_: int) -> None:
    with closing(SqliteQueue(path)) as queue:
        jobs = submit_many(queue, 200)
        workers = [crew.start(WORKER, f"w{n}", 3) for n in range(PROCESSES)]
        for worker in workers:
            assert "stale" not in ended_well(worker)
        check_ends(queue, jobs)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_processes_that_all_make_the_queue_make_one(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "new" / "queue.db"
    with closing(Crew(path)) as crew:
        makers = [crew.start(MAKER, f"k{n % 4}", 0) for n in range(8)]
        for maker in makers:
            assert maker.stdout is not None and maker.stdout.readline() == "ready\n"
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.write("\n")
            maker.stdin.flush()
        made = [ended_well(maker).strip() for maker in makers]
    with closing(SqliteQueue(path)) as queue:
        assert {job.id for job in queue.list()} == set(made)
        assert len(set(made)) == 4 and len(queue.tiers()) == 5


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_jobs_come_from_many_processes_while_others_take_them(path: Path, crew: Crew, round_: int) -> None:
    submitters = [crew.start(SUBMITTER, f"s{n}", 40) for n in range(PROCESSES)]
    workers = [crew.start(WORKER, f"w{n}", 40) for n in range(2)]
    jobs = [job for submitter in submitters for job in ended_well(submitter).split()]
    assert len(set(jobs)) == len(jobs) == PROCESSES * 40
    for worker in workers:
        ended_well(worker)
    with closing(SqliteQueue(path)) as queue:
        check_ends(queue, jobs)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_workers_killed_in_the_middle_lose_nothing(path: Path, crew: Crew, round_: int) -> None:
    clock = FakeClock()
    with closing(SqliteQueue(path, TIMING)) as queue:
        jobs = submit_many(queue, 150)
        killed = [crew.start(WORKER, f"k{n}", 10**6) for n in range(3)]
        for number, worker in enumerate(killed):
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
            waiting = queue.waiter(["m"])
            waiting.wait(0.003 * (1 + (round_ + number) % 7))
            waiting.close()
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        reaper = Reaper(queue, TIMING, clock)
        for _ in range(8):
            reaper.look()
            clock.advance(TIMING.beat_s)
        assert not queue.beats()
        ended_well(crew.start(WORKER, "heir", 60))
        check_ends(queue, jobs)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_submitter_killed_in_the_middle_may_begin_again(path: Path, crew: Crew, round_: int) -> None:
    first = crew.start(SUBMITTER, "s", 60)
    assert first.stdout is not None
    told = [first.stdout.readline().strip() for _ in range(5 + round_ % 20)]
    first.kill()
    first.wait()
    again = ended_well(crew.start(SUBMITTER, "s", 60)).split()
    assert again[: len(told)] == told
    with closing(SqliteQueue(path)) as queue:
        assert sorted(job.id for job in queue.list(JobFilter(limit=1000))) == sorted(again)
        assert len(set(again)) == 60


def test_a_stopped_worker_that_wakes_is_refused(path: Path, crew: Crew) -> None:
    program = WORKER.replace("for claim in claims:", "for claim in claims:\n        print('has', flush=True); input()")
    clock = FakeClock()
    with closing(SqliteQueue(path, TIMING)) as queue:
        (job,) = submit_many(queue, 1)
        command = [sys.executable, "-c", program, str(path), "slow", "1"]
        slow = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        crew.processes.append(slow)
        assert slow.stdout is not None and [slow.stdout.readline() for _ in range(2)] == ["ready\n", "has\n"]
        slow.send_signal(signal.SIGSTOP)
        reaper = Reaper(queue, TIMING, clock)
        for _ in range(8):
            reaper.look()
            clock.advance(TIMING.beat_s)
        assert queue.get(job).status is Status.QUEUED
        ended_well(crew.start(WORKER, "quick", 60))
        assert queue.get(job).status is Status.SUCCEEDED
        slow.send_signal(signal.SIGCONT)
        out, _ = slow.communicate("go\n", timeout=60)
        assert f"stale {job}" in out
        assert [row.event for row in queue.history(job)] == ["attempt", "attempt", "refused"]
