"""A process in a network namespace of its own, which has not even a loopback, restores and runs what was vendored.

Needs root, for `unshare`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo import IndexSettings, PushOptions, Repository
from tests.acceptance.packages import make_index, make_wheel, served
from tests.acceptance.test_environments import project

pytestmark = pytest.mark.system

MODEL = """
import socket, tiny

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        return [tiny.VERSION, [name for _, name in socket.if_nameindex()]]
"""


def test_without_any_network_a_vendored_version_runs(tmp_path: Path) -> None:
    folder = project(tmp_path / "hello", "tiny")
    (folder / "model.yaml").write_text("contract: 1\nname: hello\nentrypoint: model:Model\n")
    (folder / "model.py").write_text(MODEL)
    repository = Repository.init(str(tmp_path / "repository"))
    with served(make_index(tmp_path / "index", [make_wheel(tmp_path / "made", "tiny", "1.5")])) as address:
        index = IndexSettings(default_index=address)
        options = PushOptions(lock=True, check="none", vendor=True, index=index, cache=tmp_path / "pusher")
        repository.push(folder, options)
    for gone in ("index", "made", "pusher", "hello"):
        shutil.rmtree(tmp_path / gone)
    command = [
        sys.executable,
        "-m",
        "modelrepo_cli",
        "run",
        "hello@v1",
        "--repo",
        str(tmp_path / "repository"),
        "--json",
    ]
    environ = {**os.environ, "MODELREPO_CACHE": str(tmp_path / "box"), "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(
        ["unshare", "--net", *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == ["1.5", ["lo"]]
