"""A checkpoint file from the disk to CPU tensors, verified, beside what the disk and the processor allow.

`limit` reads the file past the page cache through a ring of buffers and hashes it, and keeps nothing. Ours brings it
into the host pool, verified chunk by chunk, and loads tensors from there in a process with torch. safetensors and torch
load the same tensors and verify nothing; of all three a byte of every page is read before the time is taken. All ways
take turns in each round, with the page cache dropped before each; ratios are medians over rounds, above 1 is faster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.models.small import write_model
from modelrepo.contract import load_spec
from modelrepo.environments import EnvironmentCache, IndexSettings, prepare
from modelrepo.fetching.disk import human
from modelrepo.versions.chunks import cut_tensors
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.tensors import read_header
from modelrepo_runtime.pool.checkpoints import content_of
from modelrepo_runtime.pool.filling import THREADS, Content
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.place import SHARED_MEMORY

LOADER = Path(__file__).resolve().parent / "loading" / "loader.py"
PACKAGES = ["torch==2.13.0", "numpy", "safetensors"]
MIB = 1 << 20
TENSOR_BYTES = 16 * MIB
PIECE_BYTES = 4 * MIB


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="for likeness with the others; JSON is all there is")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="64 MiB, one round")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--pool", type=Path, default=None, help="on the tmpfs to be measured")
    options = parser.parse_args()
    size_bytes, rounds = (64 * MIB, 1) if options.quick else (options.mib * MIB, options.rounds)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelrepo-bench-", dir=options.folder)))
        pools = stack.enter_context(tmpfs(folder, size_bytes, options.pool))
        print(json.dumps(measure(folder, pools, size_bytes, rounds), indent=2))


def measure(folder: Path, pools: dict[str, Path], size_bytes: int, rounds: int) -> dict[str, Any]:
    """Take every way once in each round; `pools` are places for a pool, the first for the figures."""
    path = folder / "model.safetensors"
    content = write_checkpoint(path, size_bytes)
    python = torch_environment(folder)
    bench = Bench(
        path, content, {name: HostPool(place, 4 * size_bytes, margin_bytes=0) for name, place in pools.items()}
    )
    with Loader(python) as loader, Loader(python) as second:
        loader.ask(do="save", path=str(path), to=str(folder / "model.pt"))
        series: dict[str, list[float]] = {}
        for number in range(rounds + 1):  # the first warms the interpreters, and memory that nobody has touched yet
            for name, seconds in bench.round(loader, folder / "model.pt").items():
                if number or rounds == 1:
                    series.setdefault(name, []).append(seconds)
        attach_ms, extra_mib = bench.warm(loader, second)
    first, *others = pools
    return {
        "bytes": path.stat().st_size,
        "cold_over_limit": ratio(series["limit"], series[f"{first}: loaded"]),
        "cold_over_safetensors": ratio(series["safetensors"], series[f"{first}: total"]),
        "cold_over_torch": ratio(series["torch"], series[f"{first}: total"]),
        "warm_attach_ms": round(attach_ms, 2),
        "second_worker_extra_mib": round(extra_mib, 2),
        "notes": [
            f"medians of {rounds} rounds; the limit reads and hashes {gb_s(path, series['limit'])} GB/s, ours "
            f"{gb_s(path, series[f'{first}: loaded'])}, safetensors {gb_s(path, series['safetensors'])}, "
            f"torch.load {gb_s(path, series['torch'])}",
            f"CPU seconds for a GiB: limit {per_gib(path, series['limit: cpu'])}, "
            f"ours {per_gib(path, series[f'{first}: cpu'])}, of {THREADS} threads on {os.cpu_count()} cores",
            f"the pool lies on {first}",
            *(
                f"on {name}: cold_over_limit {ratio(series['limit'], series[f'{name}: loaded'])}, "
                f"CPU seconds for a GiB {per_gib(path, series[f'{name}: cpu'])}"
                for name in others
            ),
        ],
    }


class Bench:
    """One file on the disk, and the ways to load it."""

    def __init__(self, path: Path, content: Content, pools: dict[str, HostPool]) -> None:
        self._path, self._content, self._pools = path, content, pools

    def round(self, loader: Loader, pickled: Path) -> dict[str, float]:
        """Return seconds by way, and CPU seconds where they are ours to count."""
        found: dict[str, float] = {}
        drop(self._path)
        found["limit"], found["limit: cpu"] = timed(lambda: read_and_hash(self._path))
        for name, pool in self._pools.items():
            drop(self._path)
            brought_s, found[f"{name}: cpu"] = timed(partial(self._bring, pool))
            answer = loader.ask(do="ours", path=str(self._path), pool=self._entry(pool))
            found[f"{name}: loaded"] = brought_s + answer["loaded_s"]
            found[f"{name}: total"] = brought_s + answer["total_s"]
            if pool.shrink(1 << 60) == 0:
                raise SystemExit("the pool's entry is still held")
        drop(self._path)
        found["safetensors"] = loader.ask(do="safetensors", path=str(self._path))["total_s"]
        drop(pickled)
        found["torch"] = loader.ask(do="torch", path=str(pickled))["total_s"]
        return found

    def _bring(self, pool: HostPool) -> None:
        pool.bring(self._content, self._path).release()

    def warm(self, loader: Loader, second: Loader) -> tuple[float, float]:
        """Return the milliseconds of an attach, and what a second process takes more in MiB."""
        pool = next(iter(self._pools.values()))
        pool.bring(self._content, self._path).release()
        times = [self._attach(pool, loader)["loaded_s"] for _ in range(9)]
        before = pool.report().used_bytes
        own = self._attach(pool, second)["own"]
        return median(times) * 1e3, (pool.report().used_bytes - before + own) / MIB

    def _attach(self, pool: HostPool, loader: Loader) -> dict[str, Any]:
        began = time.perf_counter()
        held = pool.attach(self._content)
        attached_s = time.perf_counter() - began
        assert held is not None
        answer = loader.ask(do="ours", path=str(self._path), pool=self._entry(pool))
        held.release()
        return {**answer, "loaded_s": answer["loaded_s"] + attached_s}

    def _entry(self, pool: HostPool) -> list[Any]:
        held = pool.attach(self._content)
        assert held is not None
        return [str(held.path), held.size_bytes, held.mtime_ns]


class Loader:
    """A process with torch and safetensors, ready."""

    def __init__(self, python: Path) -> None:
        command = [str(python), "-I", "-B", str(LOADER)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Loader:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the process with torch ended; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def read_and_hash(path: Path) -> None:
    """Read a file past the page cache and hash it, as fast as disk and processor let: keep nothing."""
    size, spans = path.stat().st_size, iter(range(0, path.stat().st_size, TENSOR_BYTES))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))

    def lane() -> None:
        buffer = mmap.mmap(-1, PIECE_BYTES)
        view = memoryview(buffer)
        for start in spans:
            digest = hashlib.sha256()
            for at in range(start, min(start + TENSOR_BYTES, size), PIECE_BYTES):
                digest.update(view[: os.preadv(descriptor, [view], at)])

    try:
        with ThreadPoolExecutor(THREADS) as threads:
            for each in [threads.submit(lane) for _ in range(THREADS)]:
                each.result()
    finally:
        os.close(descriptor)


def write_checkpoint(path: Path, size_bytes: int) -> Content:
    """Write tensors of random bytes, and cut them as a push does."""
    count = size_bytes // TENSOR_BYTES
    header = {
        f"layer.{n}": {
            "dtype": "BF16",
            "shape": [TENSOR_BYTES // 2048, 1024],
            "data_offsets": [n * TENSOR_BYTES, (n + 1) * TENSOR_BYTES],
        }
        for n in range(count)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            file.write(os.urandom(TENSOR_BYTES))
        file.flush()
        os.fsync(file.fileno())
    data = path.read_bytes()
    found = read_header(len(data), lambda start, length: data[start : start + length])
    assert found is not None
    chunks = tuple(
        ChunkRecord(hashlib.sha256(data[span.start : span.start + span.size_bytes]).hexdigest(), span.size_bytes)
        for span in cut_tensors(found)
    )
    return content_of(FileRecord(path.name, 0o644, len(data), "", chunks))


def torch_environment(folder: Path) -> Path:
    """Build an environment with torch and safetensors by the project's own path; return its interpreter."""
    index = IndexSettings.from_environment()
    model = write_model(folder / "model", "load", PACKAGES)
    prepared = prepare(model, load_spec(model), work=folder / "work", index=index, cache=folder / "cache", environ={})
    cache = EnvironmentCache(folder / "cache", index=index)
    return cache.ensure(prepared.record, extra=None, wheels=prepared.wheels()) / "bin" / "python"


@contextmanager
def tmpfs(folder: Path, size_bytes: int, given: Path | None) -> Iterator[dict[str, Path]]:
    """Yield places for pools: one on /dev/shm, and one with huge pages where a tmpfs may be mounted."""
    if given is not None:
        yield {str(given): given / f"modelrepo-bench-{os.getpid()}"}
        return
    mounted = folder / "pool"
    mounted.mkdir()
    options = f"size={3 * size_bytes + 64 * MIB},huge=within_size"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(mounted)], capture_output=True, check=False
    )
    plain = tempfile.TemporaryDirectory(prefix="modelrepo-bench-", dir=SHARED_MEMORY)
    found = {"/dev/shm": Path(plain.name) / "pool"}
    if made.returncode == 0:
        found[f"a tmpfs of {human(3 * size_bytes)} with huge=within_size"] = mounted / "pool"
    try:
        with plain:
            yield found
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def ratio(theirs: list[float], ours: list[float]) -> float:
    return round(median(one / other for one, other in zip(theirs, ours, strict=True)), 2)


def gb_s(path: Path, seconds: list[float]) -> float:
    return round(path.stat().st_size / median(seconds) / 1e9, 2)


def per_gib(path: Path, seconds: list[float]) -> float:
    return round(median(seconds) * 2**30 / path.stat().st_size, 2)


if __name__ == "__main__":
    main()
