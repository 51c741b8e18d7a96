"""What the embedded queue and worker add to a job: submit -> done of a no-op, minus the model's own time.

Ours: `Client.submit` and `Client.wait` in this process, `modelrepo worker` in its own, the model in a child of that.
Peer: huey on SQLite with fsync, its consumer in its own process, polling every millisecond on both sides.
Both write to the same folder, and take turns job by job; so does a bare fsync.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.queue.address import sqlite_url

WARM_UP = 20
COUNTED_JOBS = 10
PEER_POLL_S = 0.001
READY_WITHIN_S = 120.0

MODEL = {
    "model.yaml": """\
contract: 1
name: no-op
entrypoint: model:NoOp
accelerators:
  - {when: cuda}
  - {when: rocm}
  - {when: cpu}
""",
    "pyproject.toml": """\
[project]
name = "no-op"
version = "1"
requires-python = ">=3.9"
dependencies = []

[tool.uv]
package = false
""",
    "model.py": """\
import time


class NoOp:
    def load(self, ctx):
        pass

    def run(self, job):
        began = time.perf_counter()
        return {"own_ms": (time.perf_counter() - began) * 1000}
""",
}
PEER = """\
from huey import SqliteHuey

huey = SqliteHuey(filename={path!r}, fsync=True, journal_mode="wal")


@huey.task()
def no_op():
    return 0
"""


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--json", action="store_true", help="accepted for likeness with the others; JSON is all there is"
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-", dir=options.folder) as folder:
        print(json.dumps(measure(Path(folder), options.jobs), indent=2))


def measure(folder: Path, jobs: int) -> dict[str, Any]:
    """Run all three side by side; return the figures."""
    notes: list[str] = []
    ours_ms: list[float] = []
    peer_ms: list[float] = []
    fsync_ms: list[float] = []
    with ExitStack() as stack:
        client = stack.enter_context(our_side(folder))
        peer = stack.enter_context(peer_side(folder, notes))
        disk = stack.enter_context((folder / "fsync").open("wb", buffering=0))
        for number in range(WARM_UP + jobs):
            samples = [(ours_ms, our_job(client)), (fsync_ms, sync(disk.fileno()))]
            if peer is not None:
                samples.append((peer_ms, peer_job(peer)))
            if number >= WARM_UP:
                for series, sample in samples:
                    series.append(sample)
        fsyncs = commits_of_a_job(client, folder)
    if peer_ms:
        notes.append(
            f"peer: huey with fsync, consumer and result polled every {PEER_POLL_S * 1000:g} ms (its own defaults are"
            " 100 ms and more); it runs the task in the consumer's own thread, ours in a process of its own"
        )
    notes.append("fsyncs: commits of the queue for one job (submit, claim, finish), counted in its write-ahead log")
    return {
        "ours_ms_p50": rounded(median(ours_ms)),
        "ours_ms_p99": rounded(percentile(ours_ms, 0.99)),
        "fsync_ms_p50": rounded(median(fsync_ms)),
        "fsyncs": fsyncs,
        "peer": f"huey {peer_version()} SqliteHuey" if peer_ms else None,
        "peer_ms_p50": rounded(median(peer_ms)) if peer_ms else None,
        "jobs": jobs,
        "notes": notes,
    }


@contextmanager
def our_side(folder: Path) -> Iterator[Client]:
    """Publish the no-op, start a worker, and wait until it serves."""
    repo, queue = str(folder / "repo"), sqlite_url(folder / "queue.db")
    repository = Repository.init(repo)
    model = folder / "model"
    model.mkdir()
    for name, text in MODEL.items():
        (model / name).write_text(text, encoding="utf-8")
    pushed = repository.push(model, PushOptions(check="none", lock=True))
    repository.promotions.promote("no-op", pushed.version)
    settings = folder / "worker.yaml"
    settings.write_text("{}\n", encoding="utf-8")
    where = {"repo": repo, "queue": queue, "files": str(folder / "files"), "cache": str(folder / "cache")}
    flags = [f"--{name}={value}" for name, value in where.items()]
    command = [sys.executable, "-m", "modelrepo_cli", "worker", *flags, f"--config={settings}", "--name=bench"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODELREPO_")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
    with process(command, folder, environment), closing(Client(repo, queue, str(folder / "files"))) as client:
        done = client.wait(client.submit("no-op")["id"], timeout_s=READY_WITHIN_S)
        if done["status"] != "succeeded":
            raise SystemExit(f"the worker did not serve: {done}\n{(folder / 'log').read_text()}")
        yield client


def our_job(client: Client) -> float:
    """Run one job through; return milliseconds without the model's own."""
    began = time.perf_counter()
    done = client.wait(client.submit("no-op")["id"], timeout_s=60)
    took_ms = (time.perf_counter() - began) * 1000
    if done["status"] != "succeeded":
        raise SystemExit(f"a job did not succeed: {done}")
    return took_ms - float(done["result"]["own_ms"])


def commits_of_a_job(client: Client, folder: Path) -> float:
    """Return commits per job, counted from the frames of the log; beats of the idle worker are taken off."""
    log = folder / "queue.db-wal"
    for _ in range(5):
        idle = commits_while(log, lambda: time.sleep(1))
        began = time.monotonic()
        busy = commits_while(log, lambda: [our_job(client) for _ in range(COUNTED_JOBS)])
        if idle is not None and busy is not None:
            return round((busy - idle * (time.monotonic() - began)) / COUNTED_JOBS)
    raise SystemExit("could not count commits: the log began anew each time")


def commits_while(log: Path, work: Any) -> int | None:
    """Count commits that `work` makes; None where the log began anew meanwhile."""
    before = commit_frames(log)
    work()
    after = commit_frames(log)
    return after[1] - before[1] if after[0] == before[0] else None


def commit_frames(log: Path) -> tuple[bytes, int]:
    """Return the log's salt and how many of its frames end a transaction (https://sqlite.org/fileformat2.html#walformat)."""
    data = log.read_bytes()
    salt, page = data[16:24], struct.unpack(">I", data[8:12])[0]
    commits = 0
    for at in range(32, len(data) - 24, 24 + page):
        if data[at + 8 : at + 16] != salt:
            break
        commits += struct.unpack(">I", data[at + 4 : at + 8])[0] != 0
    return salt, commits


@contextmanager
def peer_side(folder: Path, notes: list[str]) -> Iterator[Any]:
    """Start the peer's consumer; None where it is not installed."""
    if importlib.util.find_spec("huey") is None:
        notes.append("peer: huey is not installed (it is in the dev extra)")
        yield None
        return
    home = folder / "peer"
    home.mkdir()
    (home / "peer_tasks.py").write_text(PEER.format(path=str(home / "huey.db")), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("peer_tasks", home / "peer_tasks.py")
    assert spec is not None and spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    sys.modules["peer_tasks"] = tasks
    spec.loader.exec_module(tasks)
    polling = [f"--delay={PEER_POLL_S}", f"--max-delay={PEER_POLL_S}", "--backoff=1"]
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "peer_tasks.huey", "-w", "1", "-n", "-q", *polling]
    with process(command, home, {**os.environ, "PYTHONPATH": str(home)}):
        tasks.no_op().get(blocking=True, timeout=60)
        yield tasks


def peer_job(tasks: Any) -> float:
    """Run one task through the peer; return milliseconds."""
    began = time.perf_counter()
    handle = tasks.no_op()
    while handle.get() is None:
        time.sleep(PEER_POLL_S)
    return (time.perf_counter() - began) * 1000


def peer_version() -> str:
    from importlib.metadata import version

    return version("huey")


@contextmanager
def process(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a process for as long as the block lasts."""
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    try:
        yield
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def sync(descriptor: int) -> float:
    """Write a page and sync it; return milliseconds."""
    os.write(descriptor, b"x" * 4096)
    began = time.perf_counter()
    os.fsync(descriptor)
    return (time.perf_counter() - began) * 1000


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def rounded(milliseconds: float) -> float:
    return round(milliseconds, 3)


if __name__ == "__main__":
    main()
