"""npm's s3rver, an S3 server that ignores preconditions, is refused as a repository. Needs node and npm."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelrepo.stores.opening import open_store

pytestmark = pytest.mark.system

S3RVER = "s3rver@3.7.1"
BUCKET = "models"
START_S = 60


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Settings by which a process reaches an s3rver."""
    assert shutil.which("npm"), "npm is missing: install node and npm (Debian: apt install nodejs npm)"
    install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(tmp_path), S3RVER]
    installed = subprocess.run(install, capture_output=True, text=True, timeout=240, check=False)
    assert installed.returncode == 0, installed.stderr
    port = free_port()
    command = [
        *(str(tmp_path / "node_modules" / ".bin" / "s3rver"), "--directory", str(tmp_path / "data")),
        *("--address", "127.0.0.1", "--port", str(port), "--no-vhost-buckets", "--configure-bucket", BUCKET),
    ]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        assert answers(server, port), (tmp_path / "log").read_text()
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MODELREPO_"))},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "S3RVER",
            "AWS_SECRET_ACCESS_KEY": "S3RVER",
            "AWS_DEFAULT_REGION": "us-east-1",
            "MODELREPO_REPO": f"s3://{BUCKET}/repository",
        }
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(server: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return True
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    return False


def modelrepo(*args: str, environment: Mapping[str, str]) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "modelrepo_cli", *args, "--json"],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def test_it_is_refused_and_taken_for_a_single_writer(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(environment["MODELREPO_REPO"])

    code, _, said = modelrepo("init", environment=environment)
    assert code == 4
    assert "were told that they had; choose a store that creates-if-absent, or pass --single-writer" in said
    assert list(store.list("")) == []

    code, document, _ = modelrepo("init", "--single-writer", environment=environment)
    assert code == 0
    assert document["single_writer"] is True
    record = json.loads(store.read("store.json"))
    assert (record["creates_if_absent"], record["single_writer"]) == (False, True)
    assert max(record["probe"]["winners"]) > 1
    assert modelrepo("list", environment=environment)[0] == 0

    command = [sys.executable, "-m", "modelrepo_cli", "init"]
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=True)
    assert "its store does not create if absent: never let two write at once" in again.stdout
