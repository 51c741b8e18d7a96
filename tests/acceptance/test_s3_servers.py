"""The S3 server that tests and benchmarks share: found by all, ended with the last of them, however that one ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo.errors import ObjectExists
from modelrepo.stores.opening import open_store
from modelrepo.testing.s3_servers import SeaweedFS

HOLD = """
import sys
from pathlib import Path
from modelrepo.testing.s3_servers import SeaweedFS
server = SeaweedFS.start(Path(sys.argv[1]))
print(server.endpoint, flush=True)
sys.stdin.read()
"""


def hold(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that holds the server of `folder`, and return it with the endpoint that it found."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def wait_for_the_guardian(folder: Path) -> None:
    with (folder / "guardian").open("a") as guardian:
        fcntl.flock(guardian, fcntl.LOCK_SH)


def test_processes_share_one_server_that_ends_with_the_last_of_them(tmp_path: Path) -> None:
    first, endpoint = hold(tmp_path)
    second, other_endpoint = hold(tmp_path)
    assert endpoint == other_endpoint
    with SeaweedFS.start(tmp_path) as server:
        assert server.endpoint == endpoint
        for process in (first, second):
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
        server.create_bucket("models")  # it answers still
    assert not list(tmp_path.glob("data-*"))
    assert not (tmp_path / "server.json").exists()


def test_a_killed_holder_takes_the_server_with_it(tmp_path: Path) -> None:
    process, endpoint = hold(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_the_guardian(tmp_path)
    with SeaweedFS.start(tmp_path) as server:
        assert server.endpoint != endpoint


def test_a_killed_guardian_takes_the_server_with_it_and_the_next_one_starts_another(tmp_path: Path) -> None:
    with SeaweedFS.start(tmp_path) as server:
        guardian = int((tmp_path / "guardian").read_text())
        os.kill(guardian, signal.SIGKILL)
        wait_for_the_guardian(tmp_path)
        with SeaweedFS.start(tmp_path) as next_one:
            assert next_one.endpoint != server.endpoint


def test_a_bucket_is_there_until_it_is_deleted(seaweed_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweed_server.environment().items():
        monkeypatch.setenv(name, value)
    for data in (b"one", b"two"):
        seaweed_server.create_bucket("made-twice")
        open_store("s3://made-twice").create("key", data)
        with pytest.raises(ObjectExists):
            open_store("s3://made-twice").create("key", b"other")
        seaweed_server.delete_bucket("made-twice")
