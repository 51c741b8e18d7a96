"""HTTP with the standard library alone: one kept-open connection for each thread and server, and time-outs on all."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.remote.sockets import CLOSED, early_answer, is_stale, tune

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
PIECE_BYTES = 256 << 10
_LONGEST_FAULT_BYTES = 64 << 10  # of an answer that is none: enough for any error's text


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, whole."""

    method: str
    url: str
    headers: Mapping[str, str] | None
    timeout_s: float
    body: bytes | IO[bytes] | None = None


class Interrupt:
    """Ends a request that another thread makes, or is about to make, at once; it then raises Unreachable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._is_set = False

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            sock = self._connection.sock if self._connection is not None else None
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def over(self, connection: http.client.HTTPConnection) -> Iterator[None]:
        """Let this connection be cut meanwhile."""
        with self._lock:
            if self._is_set:
                raise Unreachable("the request was interrupted before it was sent")
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None


class Connections:
    """Connections to any number of servers. May be used from any thread; each has its own."""

    def __init__(self, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: dict[int, tuple[threading.Thread, http.client.HTTPConnection]] = {}
        self._context: ssl.SSLContext | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        repeatable: bool = False,
        interrupt: Interrupt | None = None,
    ) -> Answer:
        """Ask, and return the answer whole, whatever its status.

        A kept connection that the server has closed meanwhile is replaced; where that shows only once the request was
        sent, it is sent again if it is `repeatable`. Raises: Unreachable where there was no answer.
        """
        asked = _Asked(method, url, headers, timeout_s, body)
        connection, is_fresh = self._connection(url)
        try:
            return self._ask(connection, asked, interrupt)
        except Unreachable as error:
            interrupted = interrupt is not None and interrupt.is_set
            if is_fresh or interrupted or not repeatable or not isinstance(error.__cause__, CLOSED):
                raise
        if body is not None and not isinstance(body, bytes):
            body.seek(0)
        return self._ask(self._connection(url)[0], asked, interrupt)

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> tuple[Answer, Iterator[memoryview]]:
        """GET in pieces, each valid until the next is asked for. Other answers than 200 and 206 come whole, without."""
        connection, _ = self._connection(url)
        with self._mapped(connection, "GET", url):
            answer = self._send(connection, _Asked("GET", url, headers, timeout_s))
            kept = {name.lower(): value for name, value in answer.getheaders()}
            if answer.status not in (200, 206):
                return Answer(answer.status, kept, answer.read(_LONGEST_FAULT_BYTES)), iter(())
        return Answer(answer.status, kept, b""), self._pieces(connection, answer, url)

    def close(self) -> None:
        """Close what no thread uses; a request under way fails. Closing twice is legal."""
        with self._lock:
            connections, self._all = list(self._all.values()), {}
        for _, connection in connections:
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, asked: _Asked, interrupt: Interrupt | None) -> Answer:
        with self._mapped(connection, asked.method, asked.url), (interrupt or Interrupt()).over(connection):
            answer = self._send(connection, asked)
            data = answer.read()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)

    def _send(self, connection: http.client.HTTPConnection, asked: _Asked) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.timeout = self._connect_timeout_s
            connection.connect()
            tune(connection)
        assert connection.sock is not None
        connection.sock.settimeout(asked.timeout_s)
        parts = urlsplit(asked.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(asked.method, target, body=asked.body, headers=dict(asked.headers or {}))
        except CLOSED as error:
            return early_answer(connection, error)
        return connection.getresponse()

    def _pieces(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, url: str
    ) -> Iterator[memoryview]:
        """Yield the body. One that ends before its announced length is no end."""
        buffer, wanted = memoryview(bytearray(PIECE_BYTES)), answer.length
        came, ended = 0, False
        try:
            while True:
                with self._mapped(connection, "GET", url):
                    size = answer.readinto(buffer)
                if not size:
                    break
                came += size
                yield buffer[:size]
            ended = True
        finally:
            if not ended:
                connection.close()  # the rest of the body would be taken for the next answer
        if wanted is not None and came < wanted:
            connection.close()
            raise Unreachable(f"GET {_shown(url)} broke off after {came} of {wanted} bytes; ask again")

    @contextmanager
    def _mapped(self, connection: http.client.HTTPConnection, method: str, url: str) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, Unreachable):
                raise
            if isinstance(error, ssl.SSLCertVerificationError):
                why = f"its certificate is not trusted ({error.verify_message}); name your authority in SSL_CERT_FILE"
                raise Unreachable(f"cannot {method} {_shown(url)}: {why}", transient=False) from error
            what = str(error) or type(error).__name__
            raise Unreachable(f"cannot {method} {_shown(url)}: {what}; is it up, and reachable from here?") from error
        except BaseException:
            connection.close()
            raise

    def _connection(self, url: str) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection to a URL's server, and whether it is a fresh one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"cannot ask {url!r}: write https://HOST or http://HOST:PORT")
        kept: dict[str, http.client.HTTPConnection] = self._mine.__dict__
        origin = f"{parts.scheme}://{parts.netloc}"
        connection = kept.get(origin)
        if connection is None:
            connection = self._make(parts.scheme, parts.hostname, parts.port)
            kept[origin] = connection
        if connection.sock is not None and is_stale(connection.sock):
            connection.close()
        if connection.sock is None:
            with self._lock:
                for key in [key for key, (thread, _) in self._all.items() if not thread.is_alive()]:
                    self._all.pop(key)[1].close()
                self._all[id(connection)] = (threading.current_thread(), connection)
            return connection, True
        return connection, False

    def _make(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port)
        with self._lock:
            self._context = self._context or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, context=self._context)


def _shown(url: str) -> str:
    """Return a URL without its query, where a signature may stand."""
    return url.partition("?")[0]


def put_file(connections: Connections, url: str, path: Path, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """PUT a file of any size without holding it in memory. Raises: Unreachable, OSError of the file itself."""
    with path.open("rb") as file:
        size = path.stat().st_size
        sized = {**headers, "Content-Length": str(size)}
        return connections.request("PUT", url, body=file, headers=sized, timeout_s=timeout_s, repeatable=True)


def now() -> float:
    """Return the wall clock; by it, signed URLs run out."""
    return time.time()
