"""Connections to where a tenant's URL was judged to lead, bounded in time whatever the server does."""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, cast

from modelrepo_runtime.gateway.addresses import Target


class PinnedConnection(HTTPConnection):
    """An HTTP connection to the addresses of a Target and to nothing else, through no proxy.

    Over TLS the certificate is held to the URL's host. `until`, by the monotonic clock, ends it however slowly
    anything drips. Raises OSError as its parent does.
    """

    def __init__(
        self, target: Target, timeout_s: float, tls: ssl.SSLContext | None = None, until: float = math.inf
    ) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self._target, self._timeout_s, self._until = target, timeout_s, until
        self.response_class = cast("type[HTTPResponse]", self._response)
        self._tls = (tls or ssl.create_default_context()) if target.scheme == "https" else None
        if self._tls is not None:
            self.default_port = 443

    def connect(self) -> None:
        """Connect to the first of the addresses that answers."""
        failed: OSError | None = None
        for address in self._target.addresses:
            try:
                plain = socket.create_connection((address, self.port), self._left_s())
                break
            except OSError as error:
                failed = error
        else:
            raise failed or OSError(f"{self.host} has no address")
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(self._left_s())
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host) if self._tls is not None else plain
        self.sock.settimeout(self._left_s())

    def _left_s(self) -> float:
        """Return how long the next wait may be. Raises: TimeoutError once the time is over."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("its time is over")
        return min(self._timeout_s, left_s)

    def _response(self, sock: socket.socket, *args: Any, **named: Any) -> HTTPResponse:
        return HTTPResponse(cast(socket.socket, _Timely(sock, self._left_s)), *args, **named)


class _Timely(RawIOBase):
    """A socket's bytes as they come; before each read `wait_s` says how long it may wait."""

    def __init__(self, sock: socket.socket, wait_s: Callable[[], float]) -> None:
        self._sock, self._wait_s = sock, wait_s
        self._raw = sock.makefile("rb", 0)  # the socket stays open as long as this

    def makefile(self, _mode: str) -> BufferedReader:
        """Return what an HTTPResponse reads: its head byte by byte, if it comes so."""
        return BufferedReader(self)

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase."""
        self._sock.settimeout(self._wait_s())
        return self._raw.readinto(buffer) or 0

    def close(self) -> None:
        """See RawIOBase."""
        self._raw.close()
        super().close()
