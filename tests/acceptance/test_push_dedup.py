"""Pushes of models that changed in part: what is read, what is sent, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from random import Random
from typing import Any

import pytest

from modelrepo import PushOptions, Repository, layout
from modelrepo.errors import InvalidCheckpoint
from modelrepo.publication import origins
from modelrepo.pushing import digest_cache
from modelrepo.stores.opening import open_store
from modelrepo.testing.tensor_files import tensor_bytes
from tests.acceptance.tiny_model import OPTIONS, write_model
from tests.conftest import Bucket

MIB, KIB = 1 << 20, 1 << 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELREPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", checkpoint="weights")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.init(str(tmp_path / "repository"))


@pytest.fixture
def command(tmp_path: Path, repository: Repository) -> Callable[..., Any]:
    """Run the command line against the repository and read its JSON."""

    def run(*args: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "modelrepo_cli", args[0], "--json", "--repo", repository.url, *args[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout or done.stderr)

    return run


def test_a_push_sends_the_tensors_that_changed_and_says_which_file_they_are_in(
    folder: Path, repository: Repository, command: Callable[..., Any]
) -> None:
    random = Random(4)
    tensors = {f"layers.{number}.weight": random.randbytes(MIB + 4 * number) for number in range(20)}
    (folder / "weights" / "a.safetensors").write_bytes(tensor_bytes(tensors))
    (folder / "weights" / "b.safetensors").write_bytes(tensor_bytes({"same": random.randbytes(2 * MIB)}))
    push = ("push", str(folder), "--check", "none", "--lock")
    first = command(*push)
    assert (first["reused_bytes"], first["version"]) == (0, "v1")

    tensors["layers.7.weight"] = random.randbytes(len(tensors["layers.7.weight"]))
    tensors["layers.99.bias"] = random.randbytes(30 * KIB)
    (folder / "weights" / "a.safetensors").write_bytes(tensor_bytes(tensors, pad=2000))
    wanted = len(tensors["layers.7.weight"]) + 30 * KIB
    planned = command("push", str(folder), "--dry-run")
    second = command(*push)
    for told in (planned["files"], second["by_file"]):
        by_path = {(each["checkpoint"], each["path"]): each for each in told}
        assert wanted <= by_path["w", "a.safetensors"]["new_bytes"] <= 1.05 * wanted
        assert by_path["w", "b.safetensors"]["new_bytes"] == 0
        assert by_path["w", "b.safetensors"]["reused_bytes"] == (folder / "weights" / "b.safetensors").stat().st_size
        assert sum(each["new_bytes"] for each in told) == second["new_bytes"]

    differing = command("diff", "tiny@v1", "tiny@v2")["tensors"]
    assert [(each["name"], each["kind"]) for each in differing] == [
        ("layers.7.weight", "changed"),
        ("layers.99.bias", "added"),
    ]
    assert differing[1]["after"] == {"dtype": "U8", "shape": [30 * KIB], "size_bytes": 30 * KIB}


def test_code_is_pushed_alone_where_no_weights_are(
    folder: Path, repository: Repository, command: Callable[..., Any]
) -> None:
    (folder / "weights" / "a.bin").write_bytes(Random(5).randbytes(3 * MIB))
    repository.push(folder, OPTIONS)
    shutil.rmtree(folder / "weights")
    (folder / "model.py").write_text("class M: ...\n")
    push = ("push", str(folder), "--check", "none")
    refused = command(*push, code=2)
    assert "checkpoint 'w' is missing" in refused["error"]["message"]
    again = command(*push, "--reuse-checkpoints", "tiny@v1")
    assert again["new_bytes"] == len("class M: ...\n")
    one, two = (repository.resolve(f"tiny@{version}").manifest for version in ("v1", "v2"))
    assert one.checkpoints == two.checkpoints
    unchanged = command(*push, "--reuse-checkpoints", "tiny@v2", "--if-changed")
    assert (unchanged["unchanged"], unchanged["version"]) == (True, "v2")
    assert command(*push, "--reuse-checkpoints", "tiny@v9", code=3)["error"]["code"] == "version_not_found"
    (folder / "model.yaml").write_text("contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {w: w, x: x}\n")
    with pytest.raises(InvalidCheckpoint, match="its source is 'w' here and 'weights' in tiny@v1"):
        repository.push(folder, PushOptions(check="none", reuse_checkpoints="tiny@v1"))


def test_a_model_of_a_thousand_shards_stays_cheap(folder: Path, repository: Repository) -> None:
    random = Random(6)
    for number in range(1000):
        shard = {f"layers.{number}.{part}": random.randbytes(KIB) for part in ("scale", "bias", "norm")}
        (folder / "weights" / f"model-{number:05}.safetensors").write_bytes(tensor_bytes(shard))
    repository.push(folder, OPTIONS)
    version = repository.resolve("tiny@v1")
    files = version.manifest.checkpoints["w"].files
    assert len(files) == 1000
    assert sum(len(file.chunks) for file in files) == 1000
    assert len(version.manifest.to_bytes()) <= 400 * len(files)
    assert len(list(repository.store.list(layout.PUSHES))) <= 2, "small files go many to a lease"


def test_a_model_of_twenty_thousand_small_tensors_stays_cheap(folder: Path, repository: Repository) -> None:
    data, size = Random(7).randbytes(40 * MIB), 2 * KIB
    tensors = {f"experts.{number}.scale": data[number * size : (number + 1) * size] for number in range(20_000)}
    (folder / "weights" / "m.safetensors").write_bytes(tensor_bytes(tensors))
    repository.push(folder, OPTIONS)
    version = repository.resolve("tiny@v1")
    (file,) = version.manifest.checkpoints["w"].files
    assert len(file.chunks) <= 40, "about ten, and a header"
    assert len(version.manifest.to_bytes()) <= 10 * KIB
    changed = dict(tensors)
    changed["experts.10000.scale"] = bytes(size)
    (folder / "weights" / "m.safetensors").write_bytes(tensor_bytes(changed))
    assert repository.push(folder, OPTIONS).new_bytes <= 16 * MIB


def test_an_unchanged_checkpoint_is_read_only_where_it_is_distrusted(
    folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_cache.DigestCache.__init__, "__defaults__", (None, False, 0))
    weights = folder / "weights" / "a.bin"
    weights.write_bytes(Random(8).randbytes(2 * MIB))
    repository.push(folder, OPTIONS)
    read: list[Path] = []
    inner = origins._opened

    def opened(file: Path) -> FileIO:
        read.append(file)
        return inner(file)

    monkeypatch.setattr(origins, "_opened", opened)
    assert repository.push(folder, OPTIONS).version == "v2"
    assert weights not in read
    repository.push(folder, dataclasses.replace(OPTIONS, rehash=True))
    assert weights in read


def test_a_bucket_holds_the_weights_and_another_folder_of_it_the_repository(folder: Path, seaweed: Bucket) -> None:
    random = Random(9)
    source = open_store(f"{seaweed.url}/weights")
    tensors = {f"layers.{number}.weight": random.randbytes(2 * MIB) for number in range(3)}
    source.create("a.safetensors", tensor_bytes(tensors))
    source.create("b.safetensors", tensor_bytes({"norm": random.randbytes(KIB)}))
    spec = f"contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {{w: '{seaweed.url}/weights'}}\n"
    (folder / "model.yaml").write_text(spec)
    repository = Repository.init(f"{seaweed.url}/repository")
    first = repository.push(folder, OPTIONS)
    again = repository.push(folder, OPTIONS)
    assert (again.version, again.new_bytes) == ("v2", 0)

    tensors["layers.1.weight"] = random.randbytes(2 * MIB)
    source.replace("a.safetensors", tensor_bytes(tensors, pad=700))
    third = repository.push(folder, OPTIONS)
    sent = {each.path: each.new_bytes for each in third.by_file if each.checkpoint}
    assert 2 * MIB <= sent["a.safetensors"] <= 1.05 * 2 * MIB
    assert sent["b.safetensors"] == 0
    pulled = repository.pull("tiny@v3", folder.parent / "pulled")
    (whole,) = pulled.rglob("a.safetensors")
    assert whole.read_bytes() == tensor_bytes(tensors, pad=700)
    changed = repository.diff("tiny@v1", "tiny@v3").tensors
    assert [(each.name, each.kind) for each in changed] == [("layers.1.weight", "changed")]
    assert first.digest != third.digest
