"""Claim and finish at the queue's port: how fast, how steady, and what a million waiting jobs, many lanes or a snapshot
that is held add to it. PostgreSQL and SQLite, each syncing to disk, and peers on the same PostgreSQL.

A batch is one `claim` of up to 50 jobs and one `finish_all` of them. When a twentieth of a queue is gone, as many jobs
are added behind its back, so that it keeps its size. Figures with `over` compare two queues batch by batch in turns, by
the median of what a batch spends in the database.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claiming import peers
from bench.claiming.filled import MODEL, STAGE, Filled, OnPostgres, OnSqlite
from modelrepo_runtime.jobs import Cause, Outcome
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.postgres_server import PostgresServer
from modelrepo_runtime.timing import Timing

BATCH = 50
SHRINKS_TO = 0.95
"""What is left of a queue when it is filled up again."""
DONE = Outcome(Cause.SUCCEEDED, {"ok": True})
SERVER = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
WARM_UP = 20
BEATING = 5
"""Sessions that beat with every batch where a snapshot is held, and where none is."""
PROCESSES = 4
MOST_PER_S = 40_000
"""Jobs that they finish at the most: so many wait for them."""
CLIENTS = 2
"""Threads for `batch50_per_s`: while one waits for the database, the other works."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    few: int = 1_000
    many: int = 1_000_000
    lanes: tuple[int, int, int] = (20, 200, 2_000)
    batches: int = 750
    singles: int = 500
    pairs: int = 120
    held_s: float = 60.0
    """How long batches are run while the snapshot is held, before they are compared."""
    peer_jobs: int = 3_000
    naive: int = 7
    processes_s: float = 15.0


QUICK = Sizes(200, 3_000, (5, 10, 20), 10, 10, 5, 0.5, 30, 2, 1.0)


@dataclass(slots=True)
class Worker:
    """One session that claims and finishes."""

    filled: Filled
    session: Session
    seq: int = 0

    @classmethod
    def begin(cls, filled: Filled, name: str = "w") -> Worker:
        return cls(filled, filled.queue.hello(WorkerInfo(name, "box", 1, slots=("0",))))

    def batch(self, limit: int = BATCH) -> tuple[float, float]:
        """Return the seconds that a batch took, and those that it spent in the database."""
        began, inside = time.perf_counter(), self.filled.in_database_s()
        done = claim_and_finish(self.filled.queue, self.session, self._next(), limit)
        took = time.perf_counter() - began, self.filled.in_database_s() - inside
        if done != limit:
            raise SystemExit(f"claimed {done} jobs of {limit}")
        return took

    def beat(self) -> float:
        """Return the seconds that a beat spent in the database."""
        inside = self.filled.in_database_s()
        self.filled.queue.beat(self.session, (), (SlotReport("0", "open", MODEL, "v1"),))
        return self.filled.in_database_s() - inside

    def _next(self) -> int:
        self.seq += 1
        return self.seq


def claim_and_finish(queue: JobQueue, session: Session, seq: int, limit: int) -> int:
    """Run one batch; return how many jobs it had."""
    claims = queue.claim(session, seq, [Offer("0", MODEL, "v1", (STAGE,), limit)])
    if limit == 1 and claims:
        queue.finish(session, claims[0].job_id, claims[0].fence, DONE)
        return 1
    ends = queue.finish_all(session, [(claim.job_id, claim.fence, DONE) for claim in claims])
    if any(isinstance(end, Exception) for end in ends):
        raise SystemExit(f"a finish was refused: {ends}")
    return len(claims)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="accepted for likeness with the others; JSON is all there is"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--only", choices=("postgresql", "sqlite"), help="leave the other one out")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    tempfile.tempdir = str(options.folder) if options.folder is not None else None
    sizes = QUICK if options.quick else Sizes()
    result: dict[str, Any] = {"postgresql": None, "sqlite": None}
    if options.only != "sqlite":
        result["postgresql"] = on_postgres(sizes)
    if options.only != "postgresql":
        result["sqlite"] = on_sqlite(sizes)
    result["notes"] = notes(sizes)
    print(json.dumps(result, indent=2))


def on_postgres(sizes: Sizes) -> dict[str, Any]:
    """Measure on a server of our own that syncs."""
    with PostgresServer.start(options=SERVER) as server:
        figures = common(sizes, lambda lanes: OnPostgres(server, lanes))
        naive = peers.naive_p50_s(server, sizes.many, sizes.naive, BATCH)
        return {
            **figures,
            "naive_p50_ms_1m": milliseconds(naive),
            "procrastinate_per_s": round(peers.procrastinate_per_s(server, sizes.peer_jobs)),
            "pgqueuer_per_s": round(peers.pgqueuer_per_s(server, sizes.peer_jobs, BATCH)),
        }


def on_sqlite(sizes: Sizes) -> dict[str, Any]:
    """Measure on files of our own."""
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-") as folder:
        numbers = iter(range(1_000))
        figures = common(sizes, lambda lanes: OnSqlite(Path(folder) / f"queue-{next(numbers)}.db", lanes))
        return {**figures, **four_processes(sizes, Path(folder) / "shared.db")}


def common(sizes: Sizes, make: Any) -> dict[str, Any]:
    """Measure what both databases are measured by."""
    lanes = sizes.lanes[0]
    with closing(filled(make, lanes, sizes.few)) as few, closing(filled(make, lanes, sizes.many)) as many:
        at_few, at_many = Worker.begin(few), Worker.begin(many)
        for _ in range(WARM_UP):
            for worker in (at_few, at_many):
                one(worker)
        times_few = [one(at_few)[0] for _ in range(sizes.batches)]
        times_many = [one(at_many)[0] for _ in range(sizes.batches)]
        singles = [one(at_many, 1)[0] for _ in range(sizes.singles)]
        figures = {
            "batch50_per_s": round(together_per_s(many, sizes.batches)),
            "single_per_s": round(1 / mean(singles)),
            "p99_ms_1k": milliseconds(percentile(times_few, 0.99)),
            "p99_ms_1m": milliseconds(percentile(times_many, 0.99)),
            "cost_1m_over_1k": over(at_many, at_few, sizes.pairs),
        }
        for count in sizes.lanes[1:]:
            with closing(filled(make, count, max(sizes.few, 20 * count))) as wide:
                figures[f"cost_{LANES[sizes.lanes.index(count)]}_lanes_over_20"] = over(
                    Worker.begin(wide), at_few, sizes.pairs
                )
        figures["held_snapshot_over_plain"] = held(make, sizes, many)
        return figures


def together_per_s(filled: Filled, batches: int) -> float:
    """Return the jobs a second that CLIENTS threads claim and finish, each with a session of its own."""
    workers = [Worker.begin(filled, f"c{number}") for number in range(CLIENTS)]
    start, errors = threading.Barrier(CLIENTS + 1), []

    def run(worker: Worker) -> None:
        start.wait()
        try:
            for _ in range(batches // CLIENTS):
                worker.batch()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if errors:
        raise SystemExit(f"a client failed: {errors[0]!r}")
    filled.waiting -= batches // CLIENTS * CLIENTS * BATCH
    filled.fill(filled.size - filled.waiting)
    return batches // CLIENTS * CLIENTS * BATCH / took


LANES = ("20", "200", "2000")


def held(make: Any, sizes: Sizes, plain: Filled) -> float:
    """Return what batches and beats cost while a snapshot is held for minutes, over what they cost without."""
    with closing(filled(make, sizes.lanes[0], sizes.many)) as queue:
        let_go = queue.hold_snapshot()
        try:
            worker, other = Worker.begin(queue), Worker.begin(plain)
            beating = [Worker.begin(queue, f"b{number}") for number in range(BEATING)]
            others = [Worker.begin(plain, f"b{number}") for number in range(BEATING)]
            until = time.monotonic() + sizes.held_s
            while time.monotonic() < until:
                one(worker)
                for session in beating:
                    session.beat()
            pairs = [
                (one(worker)[1] + sum(b.beat() for b in beating), one(other)[1] + sum(b.beat() for b in others))
                for _ in range(sizes.pairs)
            ]
        finally:
            let_go()
    return round(median(left for left, _ in pairs) / median(right for _, right in pairs), 3)


def filled(make: Any, lanes: int, jobs: int) -> Filled:
    """Return a queue of that size, at rest."""
    queue: Filled = make(lanes)
    queue.fill(jobs)
    queue.settle()
    return queue


def one(worker: Worker, limit: int = BATCH) -> tuple[float, float]:
    """Run a batch, and fill the queue up again where it has shrunk."""
    took = worker.batch(limit)
    worker.filled.waiting -= limit
    missing = worker.filled.size - worker.filled.waiting
    if missing > (1 - SHRINKS_TO) * worker.filled.size - BATCH:
        worker.filled.fill(missing)
    return took


def over(left: Worker, right: Worker, pairs: int) -> float:
    """Return the ratio of the medians of what batches of two queues spend in the database, taken in turns."""
    for worker in (left, right):
        for _ in range(min(WARM_UP, pairs)):
            one(worker)
    taken = [(one(left)[1], one(right)[1]) for _ in range(pairs)]
    return round(median(a for a, _ in taken) / median(b for _, b in taken), 3)


def four_processes(sizes: Sizes, path: Path) -> dict[str, Any]:
    """Run batches in four processes on one file; return the spread of their times and shares."""
    with closing(OnSqlite(path, sizes.lanes[0])) as queue:
        queue.fill(min(sizes.many, int(MOST_PER_S * sizes.processes_s)))
        queue.settle()
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(PROCESSES), context.Queue()
    running = [
        context.Process(target=_claim_for_a_while, args=(path, sizes.processes_s, start, told))
        for _ in range(PROCESSES)
    ]
    for process in running:
        process.start()
    series: list[list[float]] = [told.get(timeout=300) for _ in running]
    for process in running:
        process.join()
    times = [took for each in series for took in each]
    return {
        "four_process_p99_ms": milliseconds(percentile(times, 0.99)),
        "four_process_worst_ms": milliseconds(max(times)),
        "least_over_most_share": round(min(map(len, series)) / max(map(len, series)), 3),
    }


def _claim_for_a_while(path: Path, seconds: float, start: Barrier, told: Any) -> None:
    """Claim batches and finish them, each a call that is timed by itself."""
    with closing(SqliteQueue(path, Timing.embedded())) as queue:
        session = queue.hello(WorkerInfo(f"w{threading.get_native_id()}", "box", 1, slots=("0",)))
        times: list[float] = []
        start.wait(60)
        until = time.monotonic() + seconds
        seq = 0
        while time.monotonic() < until:
            seq += 1
            began = time.perf_counter()
            claims = queue.claim(session, seq, [Offer("0", MODEL, "v1", (STAGE,), BATCH)])
            between = time.perf_counter()
            queue.finish_all(session, [(claim.job_id, claim.fence, DONE) for claim in claims])
            times += [between - began, time.perf_counter() - between]
    told.put(times)


def notes(sizes: Sizes) -> list[str]:
    return [
        f"postgresql: a server of our own with {', '.join(f'{name} = {value}' for name, value in SERVER.items())} and"
        " fsync, through its socket",
        f"batch50_per_s: {CLIENTS} client threads of one process, each with batches of its own; all else: one thread,"
        " and p99 is of claim and finish together",
        f"p99_ms_1k: {sizes.few} jobs queued, p99_ms_1m and batch50_per_s: {sizes.many}; {sizes.lanes[0]} lanes",
        f"held: batches and beats ran for {sizes.held_s:g} s under the snapshot before they were compared",
        "naive: one table, `order by (now - enqueued) / slo desc limit 50 for update skip locked`, claim only",
        "procrastinate, pgqueuer: no-op tasks fetched, run and finished by one worker process, as fast as it goes;"
        " neither keeps an order by SLO nor checks which attempt finishes a job",
        f"four_process: {PROCESSES} processes on one file; each claim and each finish of 50 is a time of its own",
    ]


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
