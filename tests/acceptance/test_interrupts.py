"""Ctrl-C ends a command at once, also one whose threads wait for a server that has fallen silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from modelrepo.repository import Repository
from modelrepo.stores.opening import open_store
from modelrepo.testing.proxy import Hang, Proxy
from modelrepo.testing.s3_servers import SeaweedFS
from modelrepo.testing.small_versions import small_version

END_S = 30
"""Far below the minute that a silent server is waited for, three times over."""


class Bucket(Protocol):
    """What the fixture `seaweed` gives."""

    url: str
    server: SeaweedFS


@pytest.mark.parametrize("verb", ["verify", "pull", "copy", "list"])
def test_a_command_ends_when_it_is_interrupted(proxy: Proxy, seaweed: Bucket, tmp_path: Path, verb: str) -> None:
    Repository.init(seaweed.url)
    small_version(open_store(seaweed.url), code={f"{number}.py": f"# {number}\n".encode() for number in range(40)})
    Repository.init(str(tmp_path / "other"))
    arguments = {
        "verify": ["verify", "small@v1", "--repo", seaweed.url],
        "pull": ["pull", "small@v1", str(tmp_path / "pulled"), "--repo", seaweed.url],
        "list": ["list", "--repo", seaweed.url],
        "copy": ["copy", "small@v1", seaweed.url, str(tmp_path / "other")],
    }
    rule = proxy.on(Hang(), "GET", "list-type" if verb == "list" else "/objects/", times=None)
    command = [sys.executable, "-m", "modelrepo_cli", *arguments[verb]]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert rule.begun.wait(END_S)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=END_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted"
