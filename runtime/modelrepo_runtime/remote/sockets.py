"""Sockets under HTTP connections: tuned, looked at, and read from when a server answers early."""

from __future__ import annotations

import http.client
import select
import socket

CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""What a kept connection raises that the other end has let go of."""


def tune(connection: http.client.HTTPConnection) -> None:
    """Send at once, and notice within half a minute that nobody is at the other end any more."""
    assert connection.sock is not None
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def early_answer(connection: http.client.HTTPConnection, error: OSError) -> http.client.HTTPResponse:
    """Read what a server said before it closed on a body that it would not read; `error` where it said nothing."""
    if connection.sock is not None:
        try:
            answer = http.client.HTTPResponse(connection.sock)
            answer.begin()
        except (OSError, http.client.HTTPException):
            pass
        else:
            answer.will_close = True
            return answer
    raise error


def is_stale(sock: socket.socket) -> bool:
    """Tell whether something has come unasked: the end of the connection."""
    poller = select.poll()
    try:
        poller.register(sock, select.POLLIN)
        return bool(poller.poll(0))
    except (OSError, ValueError):
        return True
