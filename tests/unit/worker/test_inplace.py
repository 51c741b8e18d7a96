"""Whether a child may take another version up in place, by what lies on the box."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelrepo.contract import parse_spec
from modelrepo.versions.manifest import CheckpointRecord, FileRecord
from modelrepo.versions.version import LocalVersion, Version
from modelrepo_runtime.worker.inplace import hindrances
from modelrepo_runtime.worker.preparing import Chosen, Prepared
from modelrepo_runtime.worker.target import Target


def tensors(layout: Mapping[str, tuple[str, list[int]]], fill: bytes = b"\0") -> bytes:
    """Return a safetensors file; every type here takes two bytes."""
    entries, end = {}, 0
    for name, (dtype, shape) in layout.items():
        size = 2
        for extent in shape:
            size *= extent
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + fill * end


A = {"w": ("BF16", [4, 2]), "b": ("BF16", [4])}
CODE = {"model.py": b"class Model: ...", "model.yaml": b"config: {a: 1}"}


def prepared(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    code: Mapping[str, bytes] = CODE,
    yaml: str = "",
    environment: str = "e",
    checkpoint: str = "weights",
) -> Prepared:
    """A version with one checkpoint, a folder of these files."""
    number = sum(1 for _ in folder.iterdir()) + 1
    root = folder / f"v{number}"
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    manifest: Any = SimpleNamespace(
        environment=SimpleNamespace(digest=environment),
        code=records(code),
        checkpoints={checkpoint: CheckpointRecord(records(files))},
    )
    spec = parse_spec("contract: 1\nname: m\nentrypoint: model:Model\n" + yaml)
    version = Version("m", f"v{number}", f"{number:064}", manifest, spec)
    chosen = Chosen(Target("m", version.version, None, number), version, spec.stages, None, {}, {})
    local = LocalVersion(version, root, root / "code", {checkpoint: root})
    return Prepared(chosen, local, Path("/environment/bin/python"))


def records(files: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
    return tuple(
        FileRecord(name, 0o644, len(data), hashlib.sha256(data).hexdigest(), ()) for name, data in sorted(files.items())
    )


def test_other_numbers_in_the_same_tensors_may_be_taken_up(tmp_path: Path) -> None:
    old = prepared(tmp_path, {"a.safetensors": tensors(A), "config.json": b"{}"})
    new = prepared(tmp_path, {"a.safetensors": tensors(A, b"\1"), "config.json": b"{}"})
    assert hindrances(old, new, reloads=True) == ()


def test_another_contract_of_the_same_meaning_to_the_child_is_no_hindrance(tmp_path: Path) -> None:
    old = prepared(tmp_path, {"a.safetensors": tensors(A)})
    code = {**CODE, "model.yaml": b"config: {a: 2}"}
    assert hindrances(old, prepared(tmp_path, {"a.safetensors": tensors(A)}, code=code), reloads=True) == ()


def test_the_same_tensors_in_other_files_are_the_same_layout(tmp_path: Path) -> None:
    old = prepared(tmp_path, {"a.safetensors": tensors(A)})
    parts = {f"{name}.safetensors": tensors({name: layout}) for name, layout in A.items()}
    assert hindrances(old, prepared(tmp_path, parts), reloads=True) == ()


@pytest.mark.parametrize(
    ("files", "changes", "reason"),
    [
        ({}, {"environment": "f"}, "its environment is another"),
        ({}, {"code": {**CODE, "model.py": b"class Model: pass"}}, "its code is another"),
        ({}, {"code": {**CODE, "sub/model.yaml": b""}}, "its code is another"),
        ({}, {"yaml": "env: {A: b}\n"}, "its entrypoint, stages or env are others"),
        ({}, {"yaml": "stages: [{name: run, max_batch: 4}]\n"}, "its entrypoint, stages or env are others"),
        ({}, {"checkpoint": "others"}, "it has checkpoints of other names"),
        ({"config.json": b"{}"}, {}, "checkpoint weights differs in files that hold no tensors"),
        (
            {"a.safetensors": tensors({**A, "w": ("BF16", [2, 4])})},
            {},
            "checkpoint weights has other tensors, types or shapes",
        ),
        ({"a.safetensors": tensors({**A, "b": ("F16", [4])})}, {}, "checkpoint weights has other tensors"),
        ({"a.safetensors": tensors({**A, "c": ("F16", [4])})}, {}, "checkpoint weights has other tensors"),
        ({"a.safetensors": b"no header at all"}, {}, "checkpoint weights has other tensors"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, files: dict[str, bytes], changes: dict[str, Any], reason: str) -> None:
    old = prepared(tmp_path, {"a.safetensors": tensors(A)})
    (found,) = hindrances(old, prepared(tmp_path, {"a.safetensors": tensors(A), **files}, **changes), reloads=True)
    assert found.startswith(reason)


def test_a_model_without_the_method_cannot_whatever_else_is_the_same(tmp_path: Path) -> None:
    old = prepared(tmp_path, {"a.safetensors": tensors(A)})
    new = prepared(tmp_path, {"a.safetensors": tensors(A)}, environment="f")
    assert hindrances(old, new, reloads=False) == ("the model has no method reload", "its environment is another")
