"""From the pool to a device, beside the copy that safetensors makes from a memory map, and the ceiling of the bus.

Needs python3 with torch and nothing else, installs nothing, asks no network, and prints one JSON object:

    python3 bench/gpu/load.py --json

`pool` is what `ctx.load_safetensors` does for a device; `mmap` maps the same file and copies tensor by tensor, as
safetensors does; `pinned` copies one pinned buffer again and again. Without an accelerator all three copy on the CPU,
which says nothing about a bus and shows that it all works.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHILD = Path(__file__).resolve().parents[2] / "runtime" / "modelrepo_runtime" / "child"
MIB = 1 << 20
TENSOR_BYTES = 32 * MIB
PINNED_BYTES = 64 * MIB


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for likeness with the others; JSON is all there is")
    parser.add_argument("--mib", type=int, default=8192, help="size of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="64 MiB, one round")
    parser.add_argument("--device", default=None, help="default the first accelerator, else the CPU")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="on tmpfs")
    options = parser.parse_args()
    size_bytes, rounds = (64 * MIB, 1) if options.quick else (options.mib * MIB, options.rounds)
    folder = Path(tempfile.mkdtemp(prefix="modelrepo-bench-", dir=options.folder))
    try:
        print(json.dumps(measure(folder, size_bytes, rounds, options.device), indent=2))
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, size_bytes: int, rounds: int, device: str | None) -> dict[str, Any]:
    """Take each way once in every round; figures are medians."""
    import torch

    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    tensors = harness("tensors")
    file = write(folder / "model.safetensors", size_bytes)
    found = file.stat()
    pool = {str(file): (str(file), found.st_size, found.st_mtime_ns)}
    ways: dict[str, Callable[[], Any]] = {
        "pool": lambda: tensors.load(file, device, pool, tensors.Wanted(), views=False),
        "mmap": lambda: copy_from_map(file, device),
        "pinned": lambda: copy_pinned(size_bytes, device),
    }
    try:
        from safetensors.torch import load_file

        ways["safetensors"] = lambda: load_file(file, device=device)
    except ImportError:
        pass
    for way in ways.values():  # contexts, allocators and buffers of all of them, once
        way()
    series: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            series[name].append(size_bytes / timed(way, device) / 1e9)
    rates = {name: statistics.median(values) for name, values in series.items()}
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "bytes": size_bytes,
        "rounds": rounds,
        **{f"{name}_gb_s": round(rates[name], 2) for name in ("pool", "mmap", "pinned")},
        "safetensors_gb_s": round(rates["safetensors"], 2) if "safetensors" in rates else None,
        "pool_over_mmap": round(rates["pool"] / rates["mmap"], 2),
        "pool_over_pinned": round(rates["pool"] / rates["pinned"], 2),
        "notes": [
            f"torch {torch.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, {folder.parent}",
            "a bus was measured" if on_gpu else "no accelerator here: copies on the CPU, no bus was measured",
        ],
    }


def harness(name: str) -> Any:
    """Return a module of the harness, which is standard library only, from where it lies."""
    if "bench_child" not in sys.modules:
        package = types.ModuleType("bench_child")
        package.__path__ = [str(CHILD)]
        sys.modules["bench_child"] = package
    return importlib.import_module(f"bench_child.{name}")


def timed(way: Callable[[], Any], device: str) -> float:
    import torch

    began = time.perf_counter()
    way()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def copy_from_map(file: Path, device: str) -> None:
    """Copy tensor by tensor out of a map, one after the other: page faults, and memory that is not pinned."""
    import torch

    with file.open("rb") as opened:
        view = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        header = harness("tensor_headers").read_header(opened.fileno(), file)
    kept = []
    for entry in header.values():
        tensor = torch.frombuffer(view, dtype=torch.uint8, count=entry.last - entry.first, offset=entry.first)
        kept.append(tensor.to(device) if device != "cpu" else tensor.clone())


def copy_pinned(size_bytes: int, device: str) -> None:
    """Copy one pinned buffer as often as it takes, on one stream: what the bus gives."""
    import torch

    source = torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    target = torch.empty(PINNED_BYTES, dtype=torch.uint8, device=device)
    for _ in range(max(1, size_bytes // PINNED_BYTES)):
        target.copy_(source, non_blocking=True)


def write(file: Path, size_bytes: int) -> Path:
    """Write a checkpoint of tensors of 32 MiB, as a filler of the pool leaves it."""
    count = max(1, size_bytes // TENSOR_BYTES)
    header = {
        f"layer.{number}": {
            "dtype": "BF16",
            "shape": [TENSOR_BYTES // 2048, 1024],
            "data_offsets": [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES],
        }
        for number in range(count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 4096)
    block = os.urandom(TENSOR_BYTES)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            opened.write(block)
    return file


if __name__ == "__main__":
    main()
