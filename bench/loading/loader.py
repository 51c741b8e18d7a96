"""Runs in an environment with torch and safetensors: loads what it is told, a JSON line each, and says how long it was.

Once loaded, a byte of every page is read: what is only mapped has not been loaded yet.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

CHILD = Path(__file__).resolve().parents[2] / "runtime" / "modelrepo_runtime" / "child"
PAGE_BYTES = 4096


def main() -> None:
    """Answer until standard input ends."""
    import torch

    package = types.ModuleType("bench_child")
    package.__path__ = [str(CHILD)]
    sys.modules["bench_child"] = package
    tensors = importlib.import_module("bench_child.tensors")
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        before = own_bytes()
        began = time.perf_counter()
        found = load(order, tensors)
        loaded_s = time.perf_counter() - began
        touched = sum(int(tensor.reshape(-1).view(torch.uint8)[::PAGE_BYTES].sum()) for tensor in found.values())
        total_s = time.perf_counter() - began
        size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        answer = {"loaded_s": loaded_s, "total_s": total_s, "bytes": size, "own": own_bytes() - before}
        del found
        print(json.dumps({**answer, "touched": touched}), flush=True)


def load(order: dict[str, Any], tensors: Any) -> dict[str, Any]:
    """Load a file by one of the ways."""
    import torch
    from safetensors.torch import load_file

    path = order["path"]
    if order["do"] == "ours":
        return tensors.load(Path(path), "cpu", {path: tuple(order["pool"])}, tensors.Wanted())
    if order["do"] == "safetensors":
        return load_file(path)
    if order["do"] == "save":
        torch.save(load_file(path), order["to"])
        return {}
    return torch.load(path, weights_only=True)


def own_bytes() -> int:
    """Return the memory that belongs to this process and to no file: what it has written or copied."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


if __name__ == "__main__":
    main()
