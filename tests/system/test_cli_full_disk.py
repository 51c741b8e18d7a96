"""Commands on a disk that is full: a small tmpfs. Needs root, for the mount."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

DISK_BYTES = 4 * 2**20
WEIGHTS_BYTES = 6 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "cats"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "model.yaml").write_text(
        "contract: 1\nname: cats\nentrypoint: model:Model\ncheckpoints: {weights: checkpoints/weights.bin}\n"
    )
    (folder / "model.py").write_text("class Model:\n    def load(self, ctx): pass\n    def run(self, job): pass\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "cats"\nversion = "0"\nrequires-python = ">=3.11"\n[tool.uv]\npackage = false\n'
    )
    (folder / "checkpoints" / "weights.bin").write_bytes(os.urandom(WEIGHTS_BYTES))
    return folder


def modelrepo(*args: object, code: int, repo: Path, cache: Path) -> Any:
    environment = {**os.environ, "MODELREPO_REPO": str(repo), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "modelrepo_cli", *map(str, args), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    return json.loads(done.stdout)


def test_a_push_to_a_full_disk_publishes_nothing(disk: Path, model: Path, tmp_path: Path) -> None:
    modelrepo("init", code=0, repo=disk / "repo", cache=tmp_path)
    error = modelrepo("push", model, "--lock", "--check", "none", code=1, repo=disk / "repo", cache=tmp_path)["error"]
    assert error["code"] == "no_space"
    assert modelrepo("list", code=0, repo=disk / "repo", cache=tmp_path)["models"] == []
    assert not [path for path in (disk / "repo").rglob("*") if path.is_file() and path.name.startswith((".", "tmp"))]


def test_a_pull_to_a_full_disk_leaves_nothing_and_says_the_sizes(disk: Path, model: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    modelrepo("init", code=0, repo=repo, cache=tmp_path)
    modelrepo("push", model, "--lock", "--check", "none", code=0, repo=repo, cache=tmp_path)
    error = modelrepo("pull", "cats@v1", disk / "cats", code=1, repo=repo, cache=tmp_path)["error"]
    assert error["code"] == "no_space"
    assert "6.0 MiB" in error["message"]
    assert list(disk.iterdir()) == []


def test_a_run_on_a_full_cache_leaves_no_half_version(disk: Path, model: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    modelrepo("init", code=0, repo=repo, cache=tmp_path)
    modelrepo("push", model, "--lock", "--check", "none", code=0, repo=repo, cache=tmp_path)
    error = modelrepo("run", "cats@v1", code=1, repo=repo, cache=disk)["error"]
    assert error["code"] == "no_space"
    assert not list(disk.rglob("READY"))
