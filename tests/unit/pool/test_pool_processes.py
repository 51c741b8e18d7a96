"""Several processes and one pool: one copy, one filler, and what the dead leave."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo_runtime.pool.host_pool import HostPool

from .conftest import MIB, some_bytes, write

CODE = """
import hashlib, os, sys
from pathlib import Path
from modelrepo.versions.manifest import ChunkRecord
from modelrepo_runtime.pool.filling import Content
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.stock import Headroom

folder, source, do = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
key, chunks = sys.argv[4], [part.split(":") for part in sys.argv[5].split(",")]
content = Content(key, sum(int(size) for _, size in chunks), tuple(ChunkRecord(one, int(size)) for one, size in chunks))
stops = rooms = 0

def stop():
    global stops
    stops += 1
    if do == "stand still" and stops == 2:
        print("filling", flush=True)
        sys.stdin.read()
    return False

def headroom():
    global rooms
    rooms += 1
    return Headroom({"here": 1 << 40})

pool = HostPool(folder, 1 << 30, margin_bytes=0, headroom=headroom)
attached = pool.bring(content, source, stop)
print(attached.path.stat().st_ino, "filled" if rooms else "found", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


class Fleet:
    """Starts processes that bring one file into one pool, and hold it until they end."""

    def __init__(self, folder: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
        self.folder, self.source, self.processes = folder, tmp_path / "a", processes
        self.content = write(self.source, some_bytes("a", 4 * MIB))
        folder.mkdir(mode=0o700)

    def start(self, do: str = "bring") -> subprocess.Popen[str]:
        chunks = ",".join(f"{chunk.sha256}:{chunk.size_bytes}" for chunk in self.content.chunks)
        command = [sys.executable, "-c", textwrap.dedent(CODE), str(self.folder), str(self.source), do]
        process = subprocess.Popen(
            [*command, self.content.key, chunks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process


@pytest.fixture
def fleet(folder: Path, tmp_path: Path, processes: list[subprocess.Popen[str]]) -> Fleet:
    return Fleet(folder, tmp_path, processes)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_that_bring_one_file_at_once_share_one_copy(fleet: Fleet) -> None:
    said = [line(process).split() for process in [fleet.start() for _ in range(3)]]
    assert len({inode for inode, _ in said}) == 1
    assert [how for _, how in said].count("filled") == 1
    pool = HostPool(fleet.folder, 8 * MIB, margin_bytes=0)
    assert pool.report().used_bytes == pool.report().held_bytes == 4 * MIB
    assert pool.shrink(MIB) == 0
    for process in fleet.processes:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert pool.shrink(MIB) == 4 * MIB


def test_a_killed_filler_leaves_nothing_that_counts(fleet: Fleet) -> None:
    dead = fleet.start("stand still")
    assert line(dead) == "filling"
    pool = HostPool(fleet.folder, 64 * MIB, margin_bytes=0)
    assert pool.report().used_bytes == 4 * MIB
    waiting = fleet.start()
    dead.kill()
    dead.wait()
    assert line(waiting).endswith("filled")
    attached = pool.attach(fleet.content)
    assert attached is not None
    assert attached.path.read_bytes() == fleet.source.read_bytes()
    assert pool.report().used_bytes == 4 * MIB


def test_a_killed_filler_is_cleared_away_by_whoever_looks(fleet: Fleet) -> None:
    dead = fleet.start("stand still")
    assert line(dead) == "filling"
    dead.kill()
    dead.wait()
    assert HostPool(fleet.folder, 64 * MIB, margin_bytes=0).report().used_bytes == 0


def test_a_write_in_one_map_is_seen_by_nobody_else(fleet: Fleet) -> None:
    other = fleet.start()
    line(other)
    attached = HostPool(fleet.folder, 64 * MIB, margin_bytes=0).attach(fleet.content)
    assert attached is not None
    view = mmap.mmap(attached.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    view[:4] = b"mine"
    assert attached.path.read_bytes() == fleet.source.read_bytes()
