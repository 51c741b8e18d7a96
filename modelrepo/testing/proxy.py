"""A proxy before an S3 server that goes wrong on purpose: for tests of what must hold on a bad network.

    with Proxy("127.0.0.1", 8333) as proxy:
        lost = proxy.on(Swallow(), "PUT", r"/history/00000001\\.yaml$")
        ...  # a client of proxy.endpoint
        assert lost.struck == 1

What is due is found by counting: the n-th connection, the n-th request that a rule matches; nothing is left to chance.
Bytes are passed on as they are: clients sign for the proxy's address, and that is the Host that the server reads.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from modelrepo.testing.http_messages import PIECE_BYTES, Head, Wire
from modelrepo.testing.proxy_acts import (
    Act,
    Answer,
    ConnectionAct,
    CutAnswer,
    CutRequest,
    Hang,
    Reset,
    Rule,
    Seen,
    Slow,
    Swallow,
    first_due,
)

__all__ = [
    "Act", "Answer", "ConnectionAct", "CutAnswer", "CutRequest", "Hang", "Proxy", "Reset", "Rule", "Seen",
    "Slow", "Swallow",
]  # fmt: skip

_SENDS_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero: close sends RST, as a box does that lost its state


class Proxy:
    """Listens on a free port of 127.0.0.1 from `start` to `stop`; rules may be added at any time, from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._rules: list[Rule] = []
        self._connection_rules: list[Rule] = []
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._conversations: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self.stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        assert self._listener is not None, "the proxy was not started"
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> tuple[Seen, ...]:
        """Every request so far, in the order in which they came."""
        with self._lock:
            return tuple(self._seen)

    def on(self, act: Act, method: str = ".*", target: str = "", *, first: int = 1, times: int | None = 1) -> Rule:
        """Do `act` to `times` requests (None: to all), from the `first` that matches on.

        `method` matches whole, `target` is sought in the decoded path and query. Of several rules the oldest that is
        due wins.
        """
        rule = Rule(act, re.compile(method), re.compile(target), first, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def on_connection(self, act: ConnectionAct, *, first: int = 1, times: int | None = 1) -> Rule:
        """Do `act` to `times` connections, from the `first` yet to come on, before a byte is read from them."""
        rule = Rule(act, re.compile(""), re.compile(""), first, times)
        with self._lock:
            self._connection_rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget every rule: all is passed on."""
        with self._lock:
            self._rules.clear()
            self._connection_rules.clear()

    def start(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close every connection and wait for every thread; stopping twice is fine."""
        if self._listener is None or self.stopping.is_set():
            return
        self.stopping.set()
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=5).close()  # wakes the acceptor
        self._acceptor.join()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        for thread in self._conversations:
            thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def due(self, connection: int, head: Head) -> Act | None:
        """Write a request down, and say what is to be done with it."""
        with self._lock:
            act = first_due(self._rules, head.method, head.target)
            self._seen.append(Seen(connection, head.method, head.target, act))
            return act

    def dial(self) -> socket.socket:
        """Return a connection to the server."""
        return self.adopt(socket.create_connection(self._upstream))

    def adopt(self, connection: socket.socket) -> socket.socket:
        """Have a connection shut when the proxy stops."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
            if self.stopping.is_set():
                _shut(connection)
        return connection

    def close(self, connection: socket.socket) -> None:
        """Close a connection that `adopt` or `dial` returned."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _accept(self) -> None:
        assert self._listener is not None
        number = 0
        while True:
            client, _ = self._listener.accept()
            if self.stopping.is_set():
                client.close()
                return
            number += 1
            with self._lock:
                act = first_due(self._connection_rules)
            talk = _Conversation(self, number, self.adopt(client)).run
            thread = threading.Thread(target=talk, args=(act,), name=f"proxy-{number}", daemon=True)
            self._conversations = [each for each in self._conversations if each.is_alive()]
            thread.start()
            self._conversations.append(thread)


class _Over(Exception):
    """Nothing more is said on this connection."""


class _Conversation:
    """One client's connection, and the one to the server that goes with it: request and answer by turns."""

    def __init__(self, proxy: Proxy, number: int, client: socket.socket) -> None:
        self._proxy, self._number = proxy, number
        self._client, self._from_client = client, Wire(client)
        self._server: socket.socket | None = None
        self._from_server: Wire | None = None

    def run(self, act: Act | None) -> None:
        """Talk until an end closes, or an act says that it is over."""
        try:
            if act is not None:
                self._refuse(act)
            while (head := self._from_client.head()) is not None:
                act = self._proxy.due(self._number, head)
                if isinstance(act, Answer):
                    self._answer(head, act)
                else:
                    self._pass_on(head, act)
        except (_Over, OSError):
            pass
        finally:
            for connection in (self._client, self._server):
                if connection is not None:
                    self._proxy.close(connection)

    def _refuse(self, act: Act) -> None:
        if isinstance(act, Hang):
            while self._client.recv(PIECE_BYTES):
                pass
        else:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SENDS_RESET)
        raise _Over

    def _answer(self, head: Head, act: Answer) -> None:
        if not head.awaits_continue:
            for _ in self._from_client.request_body(head):
                pass
        body = f"<Error><Code>{act.code}</Code><Message>{act.code}, says the proxy</Message></Error>".encode()
        if head.method == "HEAD":
            body = b""
        fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        if head.awaits_continue:
            fields += "Connection: close\r\n"
        self._client.sendall(f"HTTP/1.1 {act.status} {act.code}\r\n{fields}\r\n".encode() + body)
        if head.awaits_continue:  # the client may send the body or not: what comes next cannot be known
            raise _Over

    def _pass_on(self, head: Head, act: Act | None) -> None:
        if isinstance(act, Hang | Reset):
            self._refuse(act)
        pace = act if isinstance(act, Slow) else Slow()
        self._proxy.stopping.wait(pace.latency_s)
        server, from_server = self._dialled()
        self._send(server, head.raw, pace)
        answer = from_server.head() if head.awaits_continue else None
        if answer is not None and answer.status == 100:
            self._client.sendall(answer.raw)
            answer = None
        is_last = answer is not None  # it came in place of 100: whether the body follows cannot be known
        if answer is None:
            is_last = self._pass_body_on(server, head, act, pace)
            answer = from_server.head()
        if answer is None:
            raise _Over
        self._give(answer, head, act, pace)
        if is_last or head.is_last or answer.is_last or not answer.has_known_end:
            raise _Over

    def _pass_body_on(self, server: socket.socket, head: Head, act: Act | None, pace: Slow) -> bool:
        """Return whether the server answered, or closed, before it had read everything."""
        left = act.after_bytes if isinstance(act, CutRequest) else None
        is_early = False
        for piece in self._from_client.request_body(head):
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            is_early = is_early or bool(select.select([server], [], [], 0)[0])
            if not is_early:
                with suppress(OSError):
                    self._send(server, piece, pace)
            if left == 0:
                break
        if isinstance(act, CutRequest):
            raise _Over
        return is_early

    def _give(self, answer: Head, head: Head, act: Act | None, pace: Slow) -> None:
        assert self._from_server is not None
        body = self._from_server.answer_body(answer, head.method)
        if isinstance(act, Swallow):
            for _ in body:
                pass
            raise _Over
        left = act.after_bytes if isinstance(act, CutAnswer) else None
        self._send(self._client, answer.raw, pace)
        for piece in body:
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            self._send(self._client, piece, pace)
            if left == 0:
                raise _Over
        if left is not None:
            raise _Over

    def _send(self, to: socket.socket, data: bytes, pace: Slow) -> None:
        if pace.bytes_per_s is None:
            to.sendall(data)
            return
        step = max(1, int(pace.bytes_per_s / 20))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            to.sendall(piece)
            self._proxy.stopping.wait(len(piece) / pace.bytes_per_s)

    def _dialled(self) -> tuple[socket.socket, Wire]:
        if self._server is None or self._from_server is None:
            self._server = self._proxy.dial()
            self._from_server = Wire(self._server)
        return self._server, self._from_server


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
