"""`ctx.load_safetensors` in a real torch environment, built through our own uv path."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.local_model import Box, LocalModel, folder_model
from modelrepo_runtime.pool.checkpoints import Pooled, content_of
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.place import SHARED_MEMORY
from modelrepo_runtime.running import LocalRun, RunOptions

SPEC = """
contract: 1
name: tensors
entrypoint: model:Tensors
checkpoints: {one: one.safetensors, folder: weights, sharded: sharded}
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
        slices = {name: tuple(part) for name, part in job.inputs.get("slices", {}).items()}
        device = job.inputs.get("device")
        try:
            tensors = self.ctx.load_safetensors(job.inputs["do"], device, names=job.inputs.get("names"), slices=slices)
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {error}"}
        if device == "meta":
            return {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
        gc.collect()
        path = self.ctx.checkpoint(job.inputs["do"].partition("/")[0])
        before = path.read_bytes() if path.is_file() else b""
        seen = {}
        for name, tensor in tensors.items():
            nibbles = tensor.dtype == torch.float4_e2m1fn_x2
            values = f"{tensor.nbytes} bytes" if nibbles else tensor.float().flatten().tolist()
            seen[name] = [str(tensor.dtype), list(tensor.shape), values]
        for tensor in tensors.values():
            tensor.view(torch.uint8).fill_(1) if tensor.dim() and tensor.is_contiguous() else tensor.zero_()
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


@contextmanager
def pooled(model: LocalModel) -> Iterator[LocalModel]:
    """Hold the checkpoint that is one file in a pool of its own."""
    with tempfile.TemporaryDirectory(prefix="modelrepo-test-", dir=SHARED_MEMORY) as memory:
        pool, path = HostPool(Path(memory) / "pool", 1 << 30, margin_bytes=0), model.checkpoints["one"]
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        record = FileRecord(path.name, 0o644, len(data), digest, (ChunkRecord(digest, len(data)),))
        yield replace(model, pooled=Pooled({path: pool.bring(content_of(record), path)}))


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
            "nibbles": ("F4", [2, 4], bytes(4)),
            "small": ("F8_E4M3", [2], b"\x38\xb8"),
            "table": ("F32", [2, 3], data + data),
        },
    )
    write(folder / "weights" / "a.safetensors", {"a": ("F32", [3], data)})
    write(folder / "weights" / "part" / "b.safetensors", {"b": ("F32", [3], data)}, pad=3)
    (folder / "sharded").mkdir()
    write(folder / "sharded" / "1.safetensors", {"a": ("F32", [3], data), "unnamed": ("F32", [3], data)})
    write(folder / "sharded" / "2.safetensors", {"b": ("F32", [3], data)})
    write(folder / "sharded" / "other.safetensors", {"a": ("F32", [3], data)})
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (folder / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    box = Box(cache=torch_cache, lock=True)
    with (
        folder_model(folder, box) as plain,
        pooled(plain) as model,
        LocalRun(model, RunOptions(outputs=base / "out")) as started,
    ):
        yield started


def test_every_type_and_alignment_is_read_and_writes_stay_private(
    run: LocalRun, capfd: pytest.CaptureFixture[str]
) -> None:
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
        "nibbles": ["torch.float4_e2m1fn_x2", [2, 2], "4 bytes"],
        "small": ["torch.float8_e4m3fn", [2], [1.0, -1.0]],
        "table": ["torch.float32", [2, 3], FLOATS + FLOATS],
    }
    assert "is read from the disk" not in capfd.readouterr().err


def test_a_folders_files_are_read_together(run: LocalRun) -> None:
    assert run.run({"do": "folder"}).result == {name: ["torch.float32", [3], FLOATS] for name in ("a", "b")}


def test_a_part_of_a_checkpoint_is_loaded_by_names_and_slices(run: LocalRun) -> None:
    table = {"do": "one", "names": ["table"]}
    float32 = "torch.float32"
    assert run.run(table).result == {"table": [float32, [2, 3], FLOATS + FLOATS]}
    assert run.run({**table, "slices": {"table": [0, 1, 2]}}).result == {"table": [float32, [1, 3], FLOATS]}
    assert run.run({**table, "slices": {"table": [-1, 1, 3]}}).result == {"table": [float32, [2, 2], FLOATS[1:] * 2]}
    said = run.run({**table, "slices": {"table": [1, 2, 4]}}).result["refused"]
    assert "2 to 4 is not within dimension 1 of 'table', [2, 3]" in said
    assert "has no dimension 2" in run.run({**table, "slices": {"table": [2, 0, 1]}}).result["refused"]
    assert "has no tensor 'mat'" in run.run({"do": "one", "names": ["mat"]}).result["refused"]


def test_shards_are_those_of_the_index(run: LocalRun) -> None:
    assert run.run({"do": "sharded"}).result == {name: ["torch.float32", [3], FLOATS] for name in ("a", "b")}
    assert run.run({"do": "sharded/other.safetensors"}).result == {"a": ["torch.float32", [3], FLOATS]}


def test_a_load_onto_meta_tells_types_and_shapes(run: LocalRun) -> None:
    result = run.run({"do": "one", "device": "meta", "names": ["half", "nibbles"]}).result
    assert result == {"half": ["torch.float16", [3]], "nibbles": ["torch.float4_e2m1fn_x2", [2, 2]]}


def test_the_benchmark_for_devices_runs_without_one(run: LocalRun) -> None:
    command = [run.model.python, Path(__file__).parents[2] / "bench" / "gpu" / "load.py", "--json", "--quick"]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, timeout=200)
    result = json.loads(done.stdout)
    assert result["bytes"] == 64 << 20
    assert {"pool_gb_s", "mmap_gb_s", "pinned_gb_s", "pool_over_mmap", "pool_over_pinned"} <= result.keys()


def test_torchs_own_out_of_memory_is_told_from_other_exceptions(run: LocalRun) -> None:
    assert run.run({"do": "oom"}).cause is Cause.OUT_OF_MEMORY
