"""Wake-up datagrams between the processes of one box, through sockets in `<db>.wake/`.

Senders tell every socket there after a commit; a receiver drains its socket, then looks at the queue. Nothing is owed:
a full or missing socket loses a wake-up, and the poll interval is the net.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from modelrepo_runtime.queue.sqlite.filesystems import on_linux

LONGEST_DATAGRAM_BYTES = 8192
LONGEST_ADDRESS = 100
"""sun_path has 108 bytes on Linux and 104 on macOS."""
_EVERYTHING = b"*"
_numbers = itertools.count(1)


class WakeFolder:
    """The sockets beside one database."""

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{path}.wake")
        self.path.mkdir(exist_ok=True)
        self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)

    def address(self, name: str) -> str | None:
        """Return an address for a socket here that is short enough, None where there is none."""
        plain = str(self.path / name)
        if len(os.fsencode(plain)) <= LONGEST_ADDRESS:
            return plain
        return f"/proc/self/fd/{self._folder}/{name}" if on_linux() and self._folder >= 0 else None

    def tell(self, models: Collection[str], jobs: Collection[str]) -> None:
        """Wake whoever waits for ready jobs of these models or for changes of these jobs."""
        if not (models or jobs):
            return
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - names only, for each commit
        except OSError:
            return
        told: dict[bool, bytes] = {}
        for name in names:
            of_models = name.startswith("m")
            if words := models if of_models else jobs:
                if of_models not in told:
                    told[of_models] = _datagram(words)
                self._send(name, told[of_models])

    def _send(self, name: str, body: bytes) -> None:
        address = self.address(name)
        if address is None:
            return
        try:
            self._sender.sendto(body, address)
        except ConnectionRefusedError:
            with suppress(OSError):
                (self.path / name).unlink()
        except OSError:
            pass

    def close(self) -> None:
        """Stop sending; closing twice is legal."""
        self._sender.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class SocketWaiter:
    """A Waiter on up to two sockets of a WakeFolder."""

    def __init__(self, folder: WakeFolder, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> None:
        self._poll_s = poll_s
        self._wanted = {"m": _words(models), "j": _words(jobs)}
        self._folder = folder.path
        self._sockets: dict[int, tuple[socket.socket, str]] = {}
        self._names: list[str] = []
        for kind, words in self._wanted.items():
            if words:
                self._listen(folder, kind)
        self._self_read, self._self_write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self._self_read, self._self_write):
            end.setblocking(False)

    def _listen(self, folder: WakeFolder, kind: str) -> None:
        name = f"{kind}{os.getpid()}-{next(_numbers)}"
        address = folder.address(name)
        if address is None:
            return
        with suppress(OSError):
            (folder.path / name).unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            listener.bind(address)
        except OSError:
            listener.close()
            return
        self._sockets[listener.fileno()] = (listener, kind)
        self._names.append(name)

    def wait(self, timeout_s: float) -> bool:
        """See Waiter."""
        until = time.monotonic() + min(timeout_s, self._poll_s)
        poller = select.poll()
        for descriptor in (*self._sockets, self._self_read.fileno()):
            poller.register(descriptor, select.POLLIN)
        while True:
            left = until - time.monotonic()
            ready = poller.poll(max(0.0, left) * 1000)
            if not ready and left <= 0:
                return False
            news = [self._drain(descriptor) for descriptor, _ in ready]
            if any(news):
                return True

    def _drain(self, descriptor: int) -> bool:
        if descriptor == self._self_read.fileno():
            _read_all(self._self_read)
            return True
        listener, kind = self._sockets[descriptor]
        wanted = self._wanted[kind]
        return any(body == _EVERYTHING or not wanted.isdisjoint(body.split(b"\0")) for body in _read_all(listener))

    def wake(self) -> None:
        """See Waiter."""
        with suppress(OSError):
            self._self_write.send(b"!")

    def close(self) -> None:
        """See Waiter."""
        for listener, _ in self._sockets.values():
            listener.close()
        self._sockets = {}
        for name in self._names:
            with suppress(OSError):
                (self._folder / name).unlink()
        self._names = []
        self._self_read.close()
        self._self_write.close()


def _datagram(names: Iterable[str]) -> bytes:
    body = b"\0".join(name.encode() for name in names)
    return body if len(body) <= LONGEST_DATAGRAM_BYTES else _EVERYTHING


def _words(names: Sequence[str]) -> frozenset[bytes]:
    return frozenset(name.encode() for name in names)


def _read_all(listener: socket.socket) -> list[bytes]:
    bodies: list[bytes] = []
    while True:
        try:
            bodies.append(listener.recv(LONGEST_DATAGRAM_BYTES))
        except OSError:
            return bodies
