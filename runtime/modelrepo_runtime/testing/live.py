"""A whole box in a folder, for acceptance tests and benchmarks: repository, queue, real workers with real children."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue, SlotReport, WorkerReport
from modelrepo_runtime.timing import Timing

PYPROJECT = """\
[project]
name = "live-model"
version = "1.0.0"
requires-python = ">=3.9"
dependencies = []

[tool.uv]
package = false
"""

# Long enough for a machine that runs eight such boxes at once; a healthy one needs a fraction.
PATIENCE_S = 120.0


class LiveWorker:
    """A worker process. Its own group, so that what a test does to it reaches nobody else."""

    def __init__(self, box: LiveBox, name: str, options: Mapping[str, Any], timing: Timing) -> None:
        self.box, self.name, self.options = box, name, dict(options)
        self.log = box.folder / f"{name}-{time.time_ns()}.log"
        told = {
            "flags": {
                "repo": box.repository.url,
                "queue": box.queue.url,
                "files": str(box.folder / "files"),
                "cache": str(box.folder / f"cache-{name}"),
                "name": name,
                "pool": "none",
                **options,
            },
            "timing": asdict(timing),
        }
        self._stream: IO[bytes] = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelrepo_runtime.testing.live", json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=self._stream,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def cache(self) -> Path:
        return self.box.folder / f"cache-{self.name}"

    def send(self, number: signal.Signals) -> None:
        """Signal the worker alone, none of its children."""
        self.process.send_signal(number)

    def wait(self, limit_s: float = PATIENCE_S) -> int:
        code = self.process.wait(limit_s)
        self._stream.close()
        return code

    def stop(self) -> int:
        """End it as an operator does, and return its exit code."""
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        return self.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """List the processes below the worker."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]


@dataclass
class LiveBox:
    """Use as a context manager: on leaving, every worker that is left is ended and waited for."""

    folder: Path
    timing: Timing = field(default_factory=Timing.embedded)
    model: str = "live"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repository = Repository.init((self.folder / "repo").as_uri(), by="tests")
        self.queue: JobQueue = open_queue(sqlite_url(self.folder / "queue.db"), self.timing)
        self.client = Client(self.repository, self.queue, str(self.folder / "files"))
        self.workers: list[LiveWorker] = []
        self._waiter = self.queue.waiter([self.model])

    def push(self, code: str, *, yaml: str = "", model: str | None = None, project: str = PYPROJECT) -> str:
        """Publish a version whose model.py is `code`, with a class Model; returns its id."""
        model = model or self.model
        source = self.folder / f"source-{model}"
        source.mkdir(exist_ok=True)
        (source / "pyproject.toml").write_text(project)
        (source / "model.yaml").write_text(f"contract: 1\nname: {model}\nentrypoint: model:Model\n{yaml}")
        (source / "model.py").write_text(code)
        return self.repository.push(source, PushOptions(check="none", lock=True)).version

    def promote(self, version: str, *, model: str | None = None, **options: Any) -> int:
        """Make a version the active one; returns the generation."""
        return self.repository.promotions.promote(model or self.model, version, force=True, **options).generation

    def worker(self, name: str = "w", *, timing: Timing | None = None, **options: Any) -> LiveWorker:
        """Start a worker; options are those of `modelrepo worker`."""
        worker = LiveWorker(self, name, options, timing or self.timing)
        self.workers.append(worker)
        return worker

    def again(self, worker: LiveWorker) -> LiveWorker:
        """Start a worker like one that is gone, in its place."""
        self.workers.remove(worker)
        return self.worker(worker.name, **worker.options)

    def slots(self, worker: str | None = None) -> list[tuple[WorkerReport, SlotReport]]:
        """Return the newest report of every slot."""
        newest: dict[str, WorkerReport] = {}
        for report in self.queue.fleet():
            known = newest.get(report.info.name)
            if known is None or report.last_beat_age_s < known.last_beat_age_s:
                newest[report.info.name] = report
        return [(report, slot) for name, report in newest.items() if worker in (None, name) for slot in report.slots]

    def until(self, true: Callable[[], bool], what: str, *, limit_s: float = PATIENCE_S) -> None:
        """Wait until something holds; news of the queue are looked at as they come."""
        end = time.monotonic() + limit_s
        while not true():
            if time.monotonic() >= end:
                logs = "\n".join(f"--- {worker.name}\n{worker.text()[-6000:]}" for worker in self.workers)
                raise TimeoutError(f"after {limit_s:g} s still not: {what}\n{self.slots()}\n{logs}")
            self._waiter.wait(0.02)

    def serves(self, version: str, *, slots: int, generation: int = 0) -> None:
        """Wait until so many slots, and no other, serve a version."""

        def all_do() -> bool:
            found = [slot for _, slot in self.slots()]
            here = [s for s in found if s.version == version and (s.generation or 0) >= generation]
            return len(here) == len(found) == slots

        self.until(all_do, f"{slots} slots serve {version}")

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.send(signal.SIGCONT)
                worker.send(signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.wait(30.0)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.wait()
        self._waiter.close()
        self.client.close()
        self.queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Size:
    """What a process holds."""

    children: int
    descriptors: int
    rss_bytes: int


def size_of(pid: int) -> Size:
    process = psutil.Process(pid)
    return Size(len(process.children(recursive=True)), process.num_fds(), int(process.memory_info().rss))


def slope(values: Sequence[float]) -> float:
    """Return the least-squares growth from one value to the next."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((place - middle) ** 2 for place in range(count))
    return sum((place - middle) * (value - mean) for place, value in enumerate(values)) / spread


def wait_gone(pids: Sequence[int], limit_s: float = 20.0) -> list[int]:
    """Wait for processes that need not be ours to end; return those that live on."""
    end = time.monotonic() + limit_s
    left = list(pids)
    while left and time.monotonic() < end:
        left = [pid for pid in left if _lives(pid)]
        if left:
            select.select([], [], [], 0.02)
    return left


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serve(told: Mapping[str, Any]) -> int:
    from modelrepo_runtime.worker.daemon import run_worker
    from modelrepo_runtime.worker.settings import load_settings

    settings, _ = load_settings(told["flags"], os.environ)
    timing: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told["timing"].items()
    }
    return run_worker(settings, timing=Timing(**timing))


if __name__ == "__main__":
    sys.exit(_serve(json.loads(sys.argv[1])))
