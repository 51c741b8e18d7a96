"""A worker in a network of its own, from which a gateway and the bucket are reached, and into which nothing leads."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import Grant, Role, token_store
from modelrepo_runtime.testing.gateway_process import BareBox, GatewayProcess
from modelrepo_runtime.testing.live import PYPROJECT
from modelrepo_runtime.timing import Timing

pytestmark = pytest.mark.system

TIMING = replace(Timing.embedded(), lease_s=30.0)
PATIENCE_S = 90.0
LISTENS = "0A"  # in /proc/net/tcp
CODE = """
import os, pathlib, time

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        while not os.path.exists(job.inputs["until"]):
            job.progress(0.5, "waits")
            time.sleep(0.01)
        job.output("loud").write_text(pathlib.Path(job.file("text")).read_text().upper())
        return sorted(name for name in os.environ if name.startswith("AWS_"))
"""
YAML = """\
contract: 1
name: live
entrypoint: model:Model
inputs:
  text: {type: string, format: file}
  until: {type: string}
outputs:
  loud: {contentType: text/plain}
"""


class Network:
    """A namespace with one cable, from 198.18.0.1 here to 198.18.0.2 there; no other way leads in or out."""

    here, there = "198.18.0.1", "198.18.0.2"

    def __init__(self) -> None:
        self.name = f"mr{os.getpid()}"
        self._cable = f"{self.name}a"

    def __enter__(self) -> Self:
        end = f"{self.name}b"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", end, "netns", self.name)
        _ip("address", "add", f"{self.here}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for arguments in (
            ("address", "add", f"{self.there}/30", "dev", end),
            ("link", "set", end, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *arguments)
        return self

    def cut(self) -> None:
        """Take the cable out."""
        _ip("link", "set", self._cable, "down")

    def restore(self) -> None:
        """Put it in again."""
        _ip("link", "set", self._cable, "up")

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._cable)
        _ip("netns", "delete", self.name)


class Forwarder:
    """Makes what listens on this box's loopback reachable at another address of it."""

    def __init__(self, address: str, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 0))
        self._listener = socket.create_server((address, 0), backlog=128)
        self.url = f"http://{address}:{self._listener.getsockname()[1]}"
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._threads.append(threading.Thread(target=self._talk, args=(client,), daemon=True))
            self._threads[-1].start()

    def _talk(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Accept no more, and end what is under way."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.fail("this test needs root and the command ip (Debian: iproute2)")
    with Network() as network:
        yield network


def test_a_job_outlives_a_cut_between_its_worker_and_everything_else(
    tmp_path: Path, seaweed: Any, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Forwarder(network.here, seaweed.server.endpoint)) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
        repository = Repository.init(f"{seaweed.url}/models", by="tests")
        _publish(repository, tmp_path)
        url, files, go = sqlite_url(tmp_path / "queue.db"), f"{seaweed.url}/files", tmp_path / "go"
        gateway = GatewayProcess(
            tmp_path, repo=repository.url, queue=url, files=files, timing=TIMING, host=network.here
        )
        with closing(open_queue(url, TIMING)) as queue, Client(repository, queue, files) as client:
            token = token_store(queue).create("box", Grant(Role.WORKER))[1]
            enter = ("ip", "netns", "exec", network.name)
            with gateway, BareBox(tmp_path, gateway.url, token, before=enter) as box:
                (tmp_path / "in.txt").write_text("quiet")
                job_id = client.submit("live", {"text": tmp_path / "in.txt", "until": str(go)})["id"]
                _until(queue, lambda: client.get(job_id)["progress"] == 0.5, box)
                assert _listening(box.process.pid) == []

                network.cut()
                _until(queue, lambda: queue.fleet()[0].last_beat_age_s > 3 * TIMING.beat_s, box)
                go.touch()
                _until(queue, lambda: queue.fleet()[0].last_beat_age_s > 5 * TIMING.beat_s, box)
                assert client.get(job_id)["status"] == "running"
                network.restore()

                job = client.wait(job_id, PATIENCE_S)
                assert (job["status"], job["result"]) == ("succeeded", []), box.text()
                assert client.files.read(queue.get(job_id).outputs[0].key) == b"QUIET"
                history = [(row.event, row.cause) for row in queue.history(job_id)]
                assert history == [("attempt", "succeeded")], box.text()


def _publish(repository: Repository, folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    for name, text in (("pyproject.toml", PYPROJECT), ("model.yaml", YAML), ("model.py", CODE)):
        (source / name).write_text(text)
    version = repository.push(source, PushOptions(check="none", lock=True)).version
    repository.promotions.promote("live", version, force=True)


def _until(queue: JobQueue, true: Any, box: BareBox) -> None:
    with closing(queue.waiter(["live"])) as waiter:
        for _ in range(int(PATIENCE_S / 0.05)):
            if true():
                return
            waiter.wait(0.05)
    raise TimeoutError(box.text())


def _listening(pid: int) -> list[str]:
    """Return the sockets that listen in a process's network."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == LISTENS]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
