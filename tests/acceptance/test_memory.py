"""Memory that others take: the worker lives on, jobs wait or end with figures, and all goes on once it is back.

Needs root, for memory cgroups and mounts.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.supervision import find_memory_groups
from modelrepo_runtime.supervision.memory_group import MemoryGroup
from modelrepo_runtime.testing.live import PATIENCE_S, LiveBox, LiveWorker

pytestmark = pytest.mark.system

MIB = 1 << 20
FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
LIMIT_BYTES = 1024 * MIB
TIGHT_BYTES, EASY_BYTES = 64 * MIB, 128 * MIB
"""Of a cgroup of that limit: less free is tight, and so much is easy again."""
ROUNDS = 5 if FULL else 1
JOBS = 20 if FULL else 3

CODE = """
class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        kept = []
        for _ in range(job.inputs.get("mib", 0) // 8):
            kept.append(b"x" * (8 << 20))
        return NUMBER
"""
YAML = "checkpoints: {weights: weights.safetensors}\n"

HOG = """
import os, sys
kept, files = [], []
for line in sys.stdin:
    act, size = line.split()
    size = int(size)
    if act == "take":
        kept.append(b"x" * size)
    elif act == "fallocate":
        files.append(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT))
        os.posix_fallocate(files[-1], 0, size)
    elif act == "back":
        kept.clear()
        for file in files:
            os.ftruncate(file, 0)
    elif act == "all":
        while True:
            kept.append(b"x" * size)
    print("done", flush=True)
"""


class Hog:
    """A process beside the worker, in its cgroup, that takes what it is told to."""

    def __init__(self, group: MemoryGroup, file: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOG, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        group.add(self.process.pid)
        self.do("take", 1)

    def do(self, act: str, size_bytes: int = 0) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(act, size_bytes, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def take_all(self) -> int:
        """Take memory until the kernel ends it, and return its exit code."""
        assert self.process.stdin is not None
        print("all", 8 * MIB, file=self.process.stdin, flush=True)
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Group:
    """A memory cgroup for a worker and what is beside it."""

    def __init__(self) -> None:
        groups = find_memory_groups()
        assert groups.parent is not None, f"this test needs memory cgroups: {groups.problem}"
        made = groups.create("acceptance", None)
        assert made is not None
        self.own = made
        (made.folder / ("memory.max" if made.version == 2 else "memory.limit_in_bytes")).write_text(str(LIMIT_BYTES))

    def free_bytes(self) -> int:
        """Return what the kernel has left to give, page cache included."""
        used = "memory.current" if self.own.version == 2 else "memory.usage_in_bytes"
        lines = (line.split() for line in (self.own.folder / "memory.stat").read_text().splitlines())
        known = {name: int(value) for name, value in lines}
        prefix = "" if self.own.version == 2 else "total_"
        cache = known[f"{prefix}inactive_file"] + known[f"{prefix}active_file"]
        return LIMIT_BYTES - int((self.own.folder / used).read_text()) + cache

    def close(self) -> None:
        for folder in [*self.own.folder.iterdir(), self.own.folder]:
            if folder.is_dir():
                left = MemoryGroup(folder, self.own.version)
                left.kill()
                assert left.remove(), f"{folder} is in use: {left.pids()}"


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    yield group
    group.close()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shm"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def hog(group: Group, mounted: Path) -> Iterator[Hog]:
    hog = Hog(group.own, mounted / "others")
    yield hog
    hog.close()


def push(box: LiveBox, number: int, size_bytes: int = MIB) -> str:
    header = json.dumps({"a": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}).encode()
    source = box.folder / f"source-{box.model}"
    source.mkdir(exist_ok=True)
    data = bytes([number]) * size_bytes
    (source / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return box.push(CODE.replace("NUMBER", str(number)), yaml=YAML)


def worker_in(box: LiveBox, group: Group, pool: Path | str = "none", **options: Any) -> LiveWorker:
    worker = box.worker(cpu_slots=1, pool=str(pool), **options)
    group.own.add(worker.pid)  # long before it has imported anything
    return worker


def submit(box: LiveBox, count: int = JOBS, mib: int = 0) -> list[str]:
    return [str(box.client.submit(box.model, {"mib": mib})["id"]) for _ in range(count)]


def succeed(box: LiveBox, jobs: list[str]) -> None:
    for job in jobs:
        ended: dict[str, Any] = dict(box.client.wait(job, PATIENCE_S))
        assert ended["status"] == "succeeded", ended


def says(box: LiveBox, *words: str) -> bool:
    """Tell whether the slot is cordoned, for a reason with these words."""
    ((_, slot),) = box.slots()
    return slot.state == "cordoned" and all(word in (slot.reason or "") for word in words)


def is_open(box: LiveBox) -> bool:
    ((_, slot),) = box.slots()
    return slot.state == "open"


def beats_on(box: LiveBox) -> None:
    """Wait until the worker was heard of twice more."""
    for _ in range(2):
        ages = [0.0]

        def is_younger(ages: list[float] = ages) -> bool:
            ages.append(box.slots()[0][0].last_beat_age_s)
            return ages[-1] < ages[-2]

        box.until(is_younger, "it beats on")


def nothing_is_lost(box: LiveBox, worker: LiveWorker) -> None:
    """The worker is the one that was started, it has lost no lease, and every job has ended."""
    assert worker.process.poll() is None
    jobs = box.queue.list(JobFilter())
    assert all(job.status.ended for job in jobs), jobs
    causes = {row.cause for job in jobs for row in box.queue.history(job.id) if row.event == "attempt"}
    assert "worker_lost" not in causes
    assert "fault where=" not in worker.text()


def test_jobs_wait_while_a_hog_has_the_memory_and_run_once_it_is_back(
    tmp_path: Path, group: Group, hog: Hog, mounted: Path
) -> None:
    with LiveBox(tmp_path / "box") as box:
        pool = HostPool(mounted / "pool", 64 * MIB, margin_bytes=0)
        worker = worker_in(box, group, mounted / "pool", pool_size="64MiB")
        for number in (1, 2):
            version = push(box, number)
            box.serves(version, slots=1, generation=box.promote(version))
        succeed(box, submit(box, 1))
        assert pool.report().entries == 2, "what serves, and what served before it"
        for _ in range(ROUNDS):
            hog.do("take", group.free_bytes() - TIGHT_BYTES // 2)
            box.until(lambda: says(box, "memory is tight: ", "are free in the control group's 1.0 GiB"), "it is tight")
            jobs = submit(box)
            box.until(lambda: pool.report().entries <= 1, "what nobody uses of the pool is dropped")
            assert pool.report().held_bytes == pool.report().used_bytes
            beats_on(box)
            assert {box.queue.get(job).status for job in jobs} == {Status.QUEUED}
            hog.do("back")
            succeed(box, jobs)
            box.until(lambda: is_open(box), "the slot is open again")
        assert worker.text().count(" memory-tight reason=") == ROUNDS
        assert worker.text().count(" memory-easy ") == ROUNDS
        nothing_is_lost(box, worker)


def test_what_is_ended_when_a_hog_takes_all_is_never_the_worker(tmp_path: Path, group: Group, mounted: Path) -> None:
    with LiveBox(tmp_path / "box") as box:
        worker = worker_in(box, group)
        version = push(box, 1)
        box.serves(version, slots=1, generation=box.promote(version))
        pids = {worker.pid}
        for _ in range(ROUNDS):
            jobs = submit(box)
            hog = Hog(group.own, mounted / "others")
            assert hog.take_all() == -9
            hog.close()
            succeed(box, jobs)
            pids.add(worker.pid)
        assert pids == {worker.pid}
        nothing_is_lost(box, worker)


def test_a_job_that_takes_more_than_there_is_fails_with_figures_after_two_tries(tmp_path: Path, group: Group) -> None:
    with LiveBox(tmp_path / "box") as box:
        worker = worker_in(box, group)
        version = push(box, 1)
        box.serves(version, slots=1, generation=box.promote(version))
        (greedy,) = submit(box, 1, mib=4096)
        ended: dict[str, Any] = dict(box.client.wait(greedy, PATIENCE_S))
        assert (ended["status"], ended["error"]["code"]) == ("failed", "out_of_memory"), ended
        told = ended["error"]["message"]
        assert "the kernel ended it for want of memory" in told
        assert "its processes had " in told
        assert "of the control group's 1.0 GiB" in told
        rows = [row for row in box.queue.history(greedy) if row.event == "attempt"]
        assert [(row.cause, row.counted) for row in rows] == [("out_of_memory", True)] * 2
        succeed(box, submit(box))
        nothing_is_lost(box, worker)


def test_a_pool_on_a_tmpfs_that_is_too_small_leaves_the_rest_to_the_disk(tmp_path: Path, group: Group) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    try:
        with LiveBox(tmp_path / "box") as box:
            worker = worker_in(box, group, folder / "pool", pool_size="64MiB")
            for number in range(1, ROUNDS + 1):
                version = push(box, number, 8 * MIB)
                box.serves(version, slots=1, generation=box.promote(version))
                succeed(box, submit(box))
                ((_, slot),) = box.slots()
                (note,) = slot.extra["notes"]
                assert "1 of 1 checkpoint files are read from the disk: no room for 8.0 MiB in the pool" in note
                assert "(a tmpfs of 4.0 MiB)" in note
            nothing_is_lost(box, worker)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_version_comes_once_files_that_were_reserved_up_to_the_limit_are_gone(
    tmp_path: Path, group: Group, hog: Hog, mounted: Path
) -> None:
    with LiveBox(tmp_path / "box") as box:
        worker = worker_in(box, group, mounted / "pool", pool_size="600MiB")
        version = push(box, 1)
        box.serves(version, slots=1, generation=box.promote(version))
        for number in range(2, ROUNDS + 2):
            hog.do("fallocate", group.free_bytes() - TIGHT_BYTES // 2)
            box.until(lambda: says(box, "memory is tight: "), "it is tight")
            version, before = push(box, number, 96 * MIB), version
            generation = box.promote(version)
            box.until(lambda: (box.slots()[0][1].incoming or {}).get("phase") == "waiting for memory", "it waits")
            assert box.slots()[0][1].version == before
            hog.do("back")
            box.serves(version, slots=1, generation=generation)
            succeed(box, submit(box))
        nothing_is_lost(box, worker)


def test_a_pool_fills_no_further_than_its_margin_beside_files_that_others_reserve(
    tmp_path: Path, group: Group, hog: Hog, mounted: Path
) -> None:
    with LiveBox(tmp_path / "box") as box:
        worker = worker_in(box, group, mounted / "pool", pool_size="600MiB")
        version = push(box, 1)
        box.serves(version, slots=1, generation=box.promote(version))
        hog.do("fallocate", group.free_bytes() - 2 * EASY_BYTES)
        version = push(box, 2, 160 * MIB)
        box.serves(version, slots=1, generation=box.promote(version))
        ((_, slot),) = box.slots()
        (note,) = slot.extra["notes"]
        assert "1 of 1 checkpoint files are read from the disk: no room for 160.0 MiB in the pool" in note
        assert "of which 512.0 MiB stay free" in note
        succeed(box, submit(box))
        nothing_is_lost(box, worker)
