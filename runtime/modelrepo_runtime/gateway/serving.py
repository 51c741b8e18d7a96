"""Runs a gateway's application: its socket, descriptors, TLS, and an end in which nothing under way is lost."""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from modelrepo.errors import Conflict, InvalidInput
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.protocol import limited

BACKLOG = 4096
OTHER_DESCRIPTORS = 512
"""For database, stores, downloads and logs, beside one for each connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway listens."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free one."""
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_local(self) -> bool:
        """True where no other box can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, bound: socket.socket) -> str:
        """Return the address of a socket of `listen`."""
        host, port = bound.getsockname()[:2]
        scheme = "https" if self.certificate is not None else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class GatewayServer:
    """A gateway on a socket; `run` blocks until `stop`, SIGTERM or SIGINT."""

    def __init__(self, app: FastAPI, place: Place, bound: socket.socket | None = None) -> None:
        self._parts: Parts = app.state.parts
        settings = self._parts.settings
        self._socket = bound or listen(place)
        self.url = place.url(self._socket)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=limited(settings),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.stop_grace_s),
            ssl_certfile=place.certificate,
            ssl_keyfile=place.key,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:
            self._socket.close()
            told = f"cannot use --tls-cert {place.certificate} with --tls-key {place.key}: {error}"
            raise InvalidInput(told) from error
        self._server = _Server(config, self._parts)

    def run(self, started: Callable[[], object] = lambda: None) -> None:
        """Serve; `started` is called once requests are answered."""
        self._server.started_hook = started
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ask for the end, from any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Wakes long waits before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts
        self.started_hook: Callable[[], object] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin."""
        await super().startup(sockets)
        if self.started:
            self.started_hook()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: no new connections, long waits are answered with what they have, the rest may finish."""
        self._parts.news.stop()
        for tell in self._parts.at_stop:
            tell()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to end at the first signal, end at once at the second; either way as one who was asked to."""
        self.should_exit, self.force_exit = True, self.should_exit


def listen(place: Place) -> socket.socket:
    """Return a listening socket. Raises: Conflict where the port is taken, InvalidInput for no such address."""
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        told = f"cannot listen on {place.host}: {error.strerror}; give --host an address of this box"
        raise InvalidInput(told) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((place.host, place.port))
        made.listen(BACKLOG)
        made.set_inheritable(False)
    except OSError as error:
        made.close()
        told = f"cannot listen on {place.host}:{place.port}: {error.strerror}; choose another --port or --host"
        raise Conflict(told) from error
    return made


def raise_descriptors(most_requests: int) -> int:
    """Raise the limit on open files to what so many connections need; return it.

    Raises: InvalidInput with the figures where the box does not allow that.
    """
    needed = most_requests + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InvalidInput(
            f"cannot carry {most_requests} connections: they need {needed} open files, and this box allows {hard}"
            f" (ulimit -Hn); raise that, or pass --max-connections {max(1, hard - OTHER_DESCRIPTORS)}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return needed


def check_open(place: Place, has_tokens: bool) -> bool:
    """Return whether nobody needs a token. Raises: InvalidInput where others could reach a gateway without tokens."""
    if has_tokens:
        return False
    if not place.is_local:
        raise InvalidInput(
            f"cannot listen on {place.host} without a token: everybody who reaches it could do everything;"
            " make one with `modelrepo token create`, or listen on 127.0.0.1"
        )
    return True
