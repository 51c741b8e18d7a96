"""`ctx.load_safetensors` in a real torch environment, built through our own uv path."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.local_model import Box, folder_model
from modelrepo_runtime.running import LocalRun, RunOptions

SPEC = """
contract: 1
name: tensors
entrypoint: model:Tensors
checkpoints: {one: one.safetensors, folder: weights}
stages: [{name: run, on: cpu}]
"""
PROJECT = """
[project]
name = "tensors"
version = "0"
requires-python = ">=3.11"
dependencies = ["torch==2.13.0", "numpy"]
"""
CODE = """
import gc
import warnings
import torch

class Tensors:
    def load(self, ctx):
        warnings.simplefilter("error")
        self.ctx = ctx

    def run(self, job):
        if job.inputs["do"] == "oom":
            raise torch.OutOfMemoryError("no memory left on the device")
        tensors = self.ctx.load_safetensors(job.inputs["do"])
        gc.collect()
        path = self.ctx.checkpoint(job.inputs["do"])
        before = path.read_bytes() if path.is_file() else b""
        seen = {}
        for name, tensor in tensors.items():
            seen[name] = [str(tensor.dtype), list(tensor.shape), tensor.float().flatten().tolist()]
        for tensor in tensors.values():
            tensor.zero_()
        assert not before or path.read_bytes() == before, "a write in the model changed the file"
        return seen
"""
FLOATS = [1.5, -2.0, 0.25]


def write(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], pad: int = 0) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt", "pad": "x" * pad}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, torch_cache: Path) -> Iterator[LocalRun]:
    base = tmp_path_factory.mktemp("tensors")
    folder = base / "model"
    (folder / "weights" / "part").mkdir(parents=True)
    (folder / "model.yaml").write_text(SPEC.strip() + "\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "model.py").write_text(CODE)
    data = struct.pack("<3f", *FLOATS)
    halves = struct.pack("<3e", *FLOATS)
    brain = b"".join(struct.pack("<f", value)[2:] for value in FLOATS)
    write(
        folder / "one.safetensors",
        {
            "flag": ("BOOL", [1], b"\1"),
            "odd": ("F32", [3], data),
            "matrix": ("F32", [3, 1], data),
            "half": ("F16", [3], halves),
            "brain": ("BF16", [3], brain),
            "long": ("I64", [1], struct.pack("<q", -(2**40))),
            "scalar": ("F64", [], struct.pack("<d", 0.5)),
            "none": ("F32", [0, 4], b""),
        },
    )
    write(folder / "weights" / "a.safetensors", {"a": ("F32", [3], data)})
    write(folder / "weights" / "part" / "b.safetensors", {"b": ("F32", [3], data)}, pad=3)
    box = Box(cache=torch_cache, lock=True)
    with folder_model(folder, box) as model, LocalRun(model, RunOptions(outputs=base / "out")) as started:
        yield started


def test_every_type_and_alignment_is_read_and_writes_stay_private(run: LocalRun) -> None:
    result = run.run({"do": "one"})
    assert result.succeeded, result.error
    assert result.result == {
        "flag": ["torch.bool", [1], [1.0]],
        "odd": ["torch.float32", [3], FLOATS],
        "matrix": ["torch.float32", [3, 1], FLOATS],
        "half": ["torch.float16", [3], FLOATS],
        "brain": ["torch.bfloat16", [3], FLOATS],
        "long": ["torch.int64", [1], [-(2.0**40)]],
        "scalar": ["torch.float64", [], [0.5]],
        "none": ["torch.float32", [0, 4], []],
    }


def test_a_folders_files_are_read_together(run: LocalRun) -> None:
    assert run.run({"do": "folder"}).result == {name: ["torch.float32", [3], FLOATS] for name in ("a", "b")}


def test_torchs_own_out_of_memory_is_told_from_other_exceptions(run: LocalRun) -> None:
    assert run.run({"do": "oom"}).cause is Cause.OUT_OF_MEMORY
