"""Messages between supervisor and child: a four-byte length, then one JSON object.

The same file serves both ends. A frame that is too long, no JSON object or without a type is a `BadFrame`:
the stream cannot be trusted after it, since somebody else wrote to the descriptor.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from typing import Any

Message = dict[str, Any]

HEADER = struct.Struct(">I")
TO_CHILD_BYTES = 16 << 20
"""Inputs and settings; the queue admits less."""
FROM_CHILD_BYTES = 1 << 20
"""Results hold at most 256 KiB of JSON, tracebacks are cut."""
_CHUNK_BYTES = 1 << 16


class BadFrame(Exception):
    """What arrived is no message of this protocol."""


def pack(message: Message) -> bytes:
    """Write a message as a frame. NaN and infinities are refused with ValueError; half a surrogate pair becomes `?`."""
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return HEADER.pack(len(body)) + body


class Channel:
    """One end of the socket pair; `send` may be called from any thread."""

    def __init__(self, sock: socket.socket, *, receive_limit_bytes: int) -> None:
        self.sock = sock
        self.ended = False
        self._limit = receive_limit_bytes
        self._buffer = bytearray()
        self._waiting: list[Message] = []
        self._sending = threading.Lock()
        self._reading = threading.RLock()

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Message) -> None:
        """Write one message whole. Raises OSError where the other end is gone."""
        data = pack(message)
        with self._sending:
            self.sock.sendall(data)

    def receive(self) -> Message | None:
        """Wait for one message; None at the end of the stream."""
        while True:
            with self._reading:
                if self._waiting:
                    return self._waiting.pop(0)
                if self.ended:
                    return None
            _wait_readable(self.sock.fileno())
            with self._reading:
                self._fill()

    def arrived(self) -> list[Message]:
        """Take the messages that are here, without waiting; sets `ended` at the end of the stream."""
        with self._reading:
            self._fill()
            taken, self._waiting = self._waiting, []
            return taken

    def give_back(self, message: Message) -> None:
        """Keep a message that `arrived` returned for the next `receive`."""
        with self._reading:
            self._waiting.append(message)

    def _fill(self) -> None:
        if self.ended:
            return
        try:
            data = self.sock.recv(_CHUNK_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return
        self._buffer += data
        self._cut()

    def _cut(self) -> None:
        buffer = self._buffer
        while len(buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer)
            if length > self._limit:
                raise BadFrame(f"a frame of {length} bytes, above {self._limit}")
            end = HEADER.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            try:
                message = json.loads(body)
            except (ValueError, RecursionError):
                raise BadFrame("a frame that is not JSON") from None
            if not isinstance(message, dict) or not isinstance(message.get("t"), str):
                raise BadFrame("a frame without a type")
            self._waiting.append(message)


def _wait_readable(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll()
