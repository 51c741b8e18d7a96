"""A version that raises on every job costs no job anything: no dead letter, and after a rollback all of them succeed.

At full size 50 workers and 5,000 jobs, else 12 and 400.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import HistoryRow, JobFilter, JobQueue
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.live import LiveBox
from modelrepo_runtime.timing import Timing
from tests.acceptance.bad_version import LIMIT_S, MODEL, Fleet

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
WORKERS, JOBS = (50, 5000) if FULL else (12, 400)
PROBES = 20 if FULL else 6
TIMING = Timing.embedded().scaled(0.2)
LONGEST_TURN_S = 1.0


def test_no_job_is_lost_to_a_bad_version_on_sqlite(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "queue.db", TIMING)) as queue:
        nothing_is_lost(queue)


def test_no_job_is_lost_to_a_bad_version_on_postgresql(postgres_url: str) -> None:
    with closing(open_queue(postgres_url, TIMING)) as queue:
        nothing_is_lost(queue)


def nothing_is_lost(queue: JobQueue) -> None:
    with Fleet(queue, TIMING, WORKERS) as fleet:
        jobs = fleet.submit(JOBS)
        since = until_probed(queue, PROBES)
        assert fleet.count(Status.FAILED) == 0 and fleet.count(Status.SUCCEEDED) == 0
        fleet.target = "v1"  # modelrepo rollback
        fleet.until(jobs, "all succeed as the version before")
    shown = queue.list(JobFilter(limit=1_000_000))
    assert {job.id for job in shown} == set(jobs)
    assert {(job.status, job.version) for job in shown} == {(Status.SUCCEEDED, "v1")}
    attempts = [row for row in queue.history() if row.event == "attempt"]
    bad = [row for row in attempts if row.version == "v2"]
    assert bad and not any(row.counted for row in bad)
    assert len(attempts) == len(bad) + JOBS
    assert_probed_one_by_one([row for row in bad if row.claimed_at is not None and row.claimed_at > since])


def until_probed(queue: JobQueue, times: int) -> float:
    """Wait until the version fails and so many attempts were made after that; return a moment since when it does.

    At that moment the trip was seen: a claim that was under way when it was written down knows nothing of it.
    """
    waiter, end, since = queue.waiter([MODEL]), time.monotonic() + LIMIT_S, None
    while True:
        if since is None and queue.failing_versions():
            since = queue.queue_report().at
        if since is not None:
            after = [row for row in queue.history() if row.claimed_at is not None and row.claimed_at > since]
            if len(after) >= times:
                waiter.close()
                return since
        assert time.monotonic() < end, "the version is not taken for failing"
        waiter.wait(0.1)


def assert_probed_one_by_one(probes: list[HistoryRow]) -> None:
    """A claim's moment is read before it waits for its model's turn: it may seem older than it is by that wait."""
    by_cluster: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in probes:
        assert row.slot is not None and row.claimed_at is not None and row.fence is not None
        by_cluster[row.slot.partition("-")[0]].append((row.fence.number, row.claimed_at, row.at))
    assert set(by_cluster) == {"a", "b"}
    for spans in by_cluster.values():
        spans.sort()
        for (_, _, ended), (_, claimed, next_ended) in pairwise(spans):
            assert ended < next_ended and ended <= claimed + LONGEST_TURN_S


GOOD = """\
class Model:
    def load(self, ctx):
        self.version = ctx.version
    def run(self, job):
        return {"version": self.version}
"""
BAD = GOOD.replace('return {"version": self.version}', 'raise RuntimeError("no such layer")')


def test_real_workers_roll_back_from_a_bad_version(tmp_path: Path) -> None:
    slots = 4
    with LiveBox(tmp_path) as box:
        good = box.push(GOOD)
        bad = box.push(BAD)
        box.promote(bad)
        for number in range(slots):
            box.worker(f"w{number}")
        box.serves(bad, slots=slots)
        jobs = [box.client.submit(box.model, {})["id"] for _ in range(20)]
        box.until(lambda: bool(box.queue.failing_versions()), "the version is taken for failing")
        box.promote(good)
        box.until(lambda: len(box.queue.list(JobFilter(status=Status.SUCCEEDED))) == len(jobs), "all jobs succeed")
        assert box.queue.list(JobFilter(status=Status.FAILED)) == ()
        assert {job["result"]["version"] for job in box.client.list()} == {good}
