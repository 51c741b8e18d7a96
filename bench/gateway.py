"""One gateway process on PostgreSQL before a fleet: idle long polls, wake-ups, claims, heartbeats and submissions.

Every request is HTTP over a connection of its own session, from one process that plays all workers and shares the
machine with the gateway and the database. A claim counts when its job came to a poll, which then finishes it and polls
again. A heartbeat carries one slot's report. A submission is the public POST /v1/jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.fleet.wire import Line
from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.jobs import Cause, Claim, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.http.calls import calls, to_bytes, write_arguments
from modelrepo_runtime.queue.http.wire import read
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.postgres.migrating import migrate
from modelrepo_runtime.queue.tokens import Grant, Role, token_store
from modelrepo_runtime.remote.connection import Connections
from modelrepo_runtime.testing.gateway_process import GatewayProcess
from modelrepo_runtime.testing.live import PYPROJECT
from modelrepo_runtime.testing.postgres_server import PostgresServer
from modelrepo_runtime.timing import Timing

MODEL, STAGE, VERSION = "no-op", "run", "v1"
POLL_S = 50.0
AT_ONCE = 200
"""Connections that are opened at once."""
SUBMITTERS = 32
MODEL_YAML = f"""\
contract: 1
name: {MODEL}
entrypoint: model:NoOp
inputs:
  n: {{type: integer}}
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    workers: int = 9_000
    wakeups: int = 300
    beats: int = 3
    """Of each session."""
    claims: int = 4_000
    submits_s: float = 10.0


QUICK = Sizes(workers=60, wakeups=10, beats=2, claims=100, submits_s=0.5)


class Worker:
    """One session with its connection: polls, beats and finishes."""

    def __init__(self, line: Line, session: Session, slot: str) -> None:
        self._line, self.session, self._slot = line, session, slot
        self._seq = 0

    async def poll(self, wait_s: float) -> tuple[Claim, ...]:
        """Ask for a job."""
        self._seq += 1
        offers = [Offer(self._slot, MODEL, VERSION, (STAGE,))]
        body = _body("claim", session=self.session, seq=self._seq, offers=offers, more={"wait_s": wait_s})
        answer = await self._line.post("/v1/worker/claim", body)
        claims: tuple[Claim, ...] = read(tuple[Claim, ...], answer["answer"], "claim")
        return claims

    async def finish(self, claim: Claim) -> None:
        """Say that a job succeeded."""
        done = Outcome(Cause.SUCCEEDED, {"ok": True})
        body = _body("finish", session=self.session, job_id=claim.job_id, fence=claim.fence, outcome=done)
        await self._line.post("/v1/worker/finish", body)

    async def beat(self) -> None:
        """Say that the session lives."""
        slots = (SlotReport(self._slot, "open", MODEL, VERSION),)
        await self._line.post("/v1/worker/beat", _body("beat", session=self.session, held=(), slots=slots))

    def close(self) -> None:
        """Disconnect."""
        self._line.close()


class Bench:
    """The fleet's side of it."""

    def __init__(self, gateway: GatewayProcess, queue: JobQueue, sizes: Sizes, tokens: tuple[str, str, str]) -> None:
        parts = urlsplit(gateway.url)
        self._host, self._port = str(parts.hostname), int(parts.port or 0)
        self._gateway, self._queue, self._sizes = gateway, queue, sizes
        self._worker_token, self._submit_token, operator = tokens
        self._operator = {"Authorization": f"Bearer {operator}"}
        self._workers: list[Worker] = []

    async def run(self, connections: Callable[[], int]) -> dict[str, Any]:
        """Measure everything, one thing after the other."""
        begun = time.perf_counter()
        await self._join()
        joined_s = time.perf_counter() - begun
        print(f"{len(self._workers)} workers after {joined_s:.0f} s", file=sys.stderr)
        beats_per_s = await self._beat()
        print(f"{beats_per_s:.0f} beats a second", file=sys.stderr)
        idle = [asyncio.create_task(self._serve(worker)) for worker in self._workers]
        waiting = await self._until_idle()
        rss = psutil.Process(self._gateway.pid).memory_info().rss / 2**20
        print(f"{waiting} polls wait", file=sys.stderr)
        wakeups = await self._wake()
        open_connections = connections()
        claims_per_s = await self._flood()
        submits_per_s = await self._submit()
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        return {
            "long_polls": waiting,
            "db_connections": open_connections,
            "rss_mib": round(rss),
            "wakeup_ms_p50": _quantile(wakeups, 0.5),
            "wakeup_ms_p99": _quantile(wakeups, 0.99),
            "claims_per_s": round(claims_per_s),
            "heartbeats_per_s": round(beats_per_s),
            "submits_per_s": round(submits_per_s),
            "hellos_per_s": round(self._sizes.workers / joined_s),
        }

    async def _join(self) -> None:
        """Open every worker's connection, and begin its session."""

        async def one(number: int) -> None:
            line = await Line(self._host, self._port, self._worker_token).open()
            info = WorkerInfo(f"w{number}", f"box{number}", number, slots=("0",))
            answer = await line.post("/v1/worker/hello", _body("hello", info=info))
            self._workers.append(Worker(line, read(Session, answer["answer"], "hello"), "0"))

        await _each(range(self._sizes.workers), one, AT_ONCE)

    async def _beat(self) -> float:
        """Return how many beats a second are answered, once what their slots say is known."""

        async def several(worker: Worker) -> None:
            for _ in range(self._sizes.beats):
                await worker.beat()

        await asyncio.gather(*(worker.beat() for worker in self._workers))
        begun = time.perf_counter()
        await asyncio.gather(*(several(worker) for worker in self._workers))
        return self._sizes.beats * len(self._workers) / (time.perf_counter() - begun)

    async def _serve(self, worker: Worker) -> None:
        """Poll for ever, and finish what comes."""
        while True:
            for claim in await worker.poll(POLL_S):
                self._came.append((time.perf_counter(), claim.job_id))
                await worker.finish(claim)
                self._finished += 1
                self._news.set()

    async def _until_idle(self) -> int:
        """Return how many polls wait, once that is all of them, or grows no more."""
        self._came: list[tuple[float, str]] = []
        self._finished, self._news = 0, asyncio.Event()
        before, waiting = -1, 0
        while waiting < len(self._workers) and waiting > before:
            before = waiting
            await asyncio.sleep(3.0)
            waiting = await asyncio.to_thread(self._waits)
        return waiting

    def _waits(self) -> int:
        connections = Connections()
        with closing(connections):
            url = f"{self._gateway.url}/metrics"
            text = connections.request("GET", url, headers=self._operator, timeout_s=300.0).body.decode()
        for line in text.splitlines():
            if line.startswith('modelrepo_gateway_waits{kind="claim"}'):
                return int(float(line.rpartition(" ")[2]))
        return 0

    async def _wake(self) -> list[float]:
        """Return the milliseconds from a job's commit to the answer of a poll, of jobs that come one by one."""
        times: list[float] = []
        for _ in range(self._sizes.wakeups):
            self._came.clear()
            expected = self._finished + 1
            job = await asyncio.to_thread(self._queue.submit, _submission())
            committed = time.perf_counter()
            await self._until_finished(expected)
            (came,) = [at for at, job_id in self._came if job_id == job.id]
            times.append(max(0.0, came - committed) * 1000)
        return times

    async def _flood(self) -> float:
        """Return how many jobs a second come to workers and are finished, while more wait than there are workers."""
        expected = self._finished + self._sizes.claims
        await asyncio.to_thread(self._fill, self._sizes.claims)
        begun, first = time.perf_counter(), self._finished
        await self._until_finished(expected)
        return (expected - first) / (time.perf_counter() - begun)

    def _fill(self, count: int) -> None:
        self._queue.pause(MODEL)
        for _ in range(count):
            self._queue.submit(_submission())
        self._queue.resume(MODEL)

    async def _until_finished(self, expected: int) -> None:
        while self._finished < expected:
            self._news.clear()
            await self._news.wait()

    async def _submit(self) -> float:
        until = time.perf_counter() + self._sizes.submits_s
        body = json.dumps({"model": MODEL, "inputs": {"n": 1}}).encode()
        done = 0

        async def one(_: int) -> None:
            nonlocal done
            line = await Line(self._host, self._port, self._submit_token).open()
            while time.perf_counter() < until:
                await line.post("/v1/jobs", body)
                done += 1
            line.close()

        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(SUBMITTERS)))
        return done / (time.perf_counter() - begun)


async def _each(items: Sequence[int], act: Callable[[int], Awaitable[None]], at_once: int) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(item: int) -> None:
        async with gate:
            await act(item)

    await asyncio.gather(*(one(item) for item in items))


def _submission() -> Submission:
    return Submission(MODEL, {"n": 1}, (StageNeed(STAGE),))


def _body(name: str, more: dict[str, Any] | None = None, **arguments: Any) -> bytes:
    return to_bytes({**write_arguments(calls()[name], arguments), **(more or {})}, name)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def _repository(folder: Path) -> Repository:
    repository = Repository.init((folder / "repository").as_uri(), by="bench")
    source = folder / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "model.yaml").write_text(MODEL_YAML)
    (source / "model.py").write_text("class NoOp:\n    def run(self, job):\n        return None\n")
    version = repository.push(source, PushOptions(check="none", lock=True)).version
    repository.promotions.promote(MODEL, version, force=True)
    return repository


def _count_connections(url: str) -> int:
    """Count the connections of the gateway's pool: all but ours and the bench's own queue's."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchone()
    return int(row[0]) if row else 0


def measure(sizes: Sizes) -> dict[str, Any]:
    """Start a database and a gateway, and put the load on them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (sizes.workers + 2_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-") as name, PostgresServer.start() as server:
        folder = Path(name)
        url = server.create_database()
        migrate(url)
        repository = _repository(folder)
        with closing(open_queue(url, Timing())) as queue:
            store = token_store(queue)
            tokens = (
                store.create("boxes", Grant(Role.WORKER))[1],
                store.create("shop", Grant(Role.SUBMIT, tenant="shop"))[1],
                store.create("operator", Grant(Role.OPERATE))[1],
            )
            ours = _count_connections(url)
            gateway = GatewayProcess(
                folder,
                repo=repository.url,
                queue=url,
                files=str(folder / "files"),
                timing=Timing(),
                most_requests=sizes.workers + 500,
            )
            with gateway:
                bench = Bench(gateway, queue, sizes, tokens)
                return asyncio.run(bench.run(lambda: _count_connections(url) - ours))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a small fleet, to see that it works")
    parser.add_argument("--workers", type=int, help="so many sessions")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if options.workers:
        sizes = Sizes(workers=options.workers)
    result = measure(sizes)
    result["notes"] = [
        f"{sizes.workers} sessions over as many connections; gateway, database and load on the same machine",
        "wakeup: from a job's commit to the answer of a poll; claims: each finished over HTTP before the next poll",
    ]
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
