"""A gateway in a process of its own, which tests may kill; and a worker's box that knows nothing but its token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelrepo_runtime.queue.http.wire import read
from modelrepo_runtime.timing import Timing

START_S = 60.0
END_S = 60.0
# What a process needs to run at all; no address and no credential is among it.
PLAIN = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "UV_FIND_LINKS", "PIP_FIND_LINKS", "SSL_CERT_FILE")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


class GatewayProcess:
    """`modelrepo gateway` on a port that it keeps over restarts. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        repo: str,
        queue: str,
        files: str,
        timing: Timing,
        host: str = "127.0.0.1",
        port: int | None = None,
        most_requests: int = 200,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{host}:{self.port}"
        self._told: dict[str, Any] = {
            "host": host,
            "port": self.port,
            "repo": repo,
            "queue": queue,
            "files": files,
            "timing": asdict(timing),
            "most_requests": most_requests,
        }
        self._log, self._process = folder / "gateway.log", None
        self._folder = folder

    _process: subprocess.Popen[bytes] | None

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, "the gateway was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelrepo_runtime.testing.gateway_process", json.dumps(self._told)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                socket.create_connection((self._told["host"], self.port), 1.0).close()
                return
            time.sleep(0.02)
        raise TimeoutError(f"the gateway did not start:\n{self.text()}")

    def kill(self) -> None:
        """End it as a lost box does."""
        assert self._process is not None, "the gateway was not started"
        self._process.kill()
        self._process.wait(END_S)

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        if self._process is None or self._process.poll() is not None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def text(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class BareBox:
    """A worker started as its page says, `modelrepo worker --queue URL --token-file F`, in an empty environment.

    `before` is put in front of the command: what moves it into another network.
    """

    def __init__(
        self, folder: Path, url: str, token: str, *options: str, name: str = "box", before: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.name = folder / name, name
        (self.folder / "home").mkdir(parents=True)
        token_file = self.folder / "token"
        token_file.write_text(token + "\n")
        self.log = self.folder / "worker.log"
        cache = str(self.folder / "cache")
        command = [
            "worker",
            "--queue",
            url,
            "--token-file",
            str(token_file),
            "--cache",
            cache,
            "--name",
            name,
            *options,
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "modelrepo_cli", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )

    def _environment(self) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in PLAIN if name in os.environ}
        return {**kept, "HOME": str(self.folder / "home")}

    def text(self) -> str:
        """Return what it wrote."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _serve(told: Mapping[str, Any]) -> None:
    from modelrepo.repository import Repository
    from modelrepo_runtime.gateway.running import Wish, run_gateway
    from modelrepo_runtime.queue.opening import open_queue

    timing = read(Timing, told["timing"], "timing")
    queue = open_queue(told["queue"], timing)
    wish = Wish(host=told["host"], port=told["port"], stop_grace_s=5.0, most_requests=told["most_requests"])
    run_gateway(wish, Repository.open(told["repo"]), queue, told["files"], print, timing)
    queue.close()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
