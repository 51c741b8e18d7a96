"""Where one HTTP/1.1 message ends and the next begins (RFC 9112, section 6): no more than a proxy needs."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

PIECE_BYTES = 64 << 10
LONGEST_HEAD_BYTES = 256 << 10  # a peer that sends more speaks no HTTP


class Closed(ConnectionError):
    """The peer closed the connection inside a message."""


@dataclass(frozen=True, slots=True)
class Head:
    """A message up to its blank line. `raw` has every byte of it; names in `fields` are in lower case."""

    raw: bytes
    start: str
    fields: Mapping[str, str]

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """The path and query of a request, decoded."""
        return unquote(self.start.split(" ")[1])

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.start.split(" ")[1])

    @property
    def awaits_continue(self) -> bool:
        return self.fields.get("expect", "").lower() == "100-continue"

    @property
    def has_known_end(self) -> bool:
        """Whether the message says where it ends; else the connection's end is its own."""
        return "content-length" in self.fields or self.is_chunked or self.status in (204, 304)

    @property
    def is_chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower().endswith("chunked")

    @property
    def is_last(self) -> bool:
        """Whether the connection closes after this message."""
        return self.fields.get("connection", "").lower() == "close"


class Wire:
    """One end of a connection, read message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = bytearray()

    def head(self) -> Head | None:
        """Read the next head; None where the peer has closed in good order between two messages.

        Raises:
            Closed, OSError
        """
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > LONGEST_HEAD_BYTES:
                raise Closed(f"{len(self._held)} bytes and no end of a head")
            if not self._fill():
                if self._held:
                    raise Closed("closed inside a head")
                return None
        raw = self._take(end + 4)
        start, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Head(raw, start, {name.strip().lower(): value.strip() for name, _, value in pairs})

    def request_body(self, head: Head) -> Iterator[bytes]:
        """Yield the bytes after a request's head as they come, the framing of chunks included."""
        if head.is_chunked:
            return self._chunks()
        return self._exactly(int(head.fields.get("content-length", 0)))

    def answer_body(self, head: Head, method: str) -> Iterator[bytes]:
        """Yield the bytes after the head of the answer to a `method` request."""
        if method == "HEAD" or head.status < 200 or head.status in (204, 304):
            return iter(())
        if head.is_chunked:
            return self._chunks()
        if "content-length" in head.fields:
            return self._exactly(int(head.fields["content-length"]))
        return self._rest()

    def _exactly(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes:
            if not self._held and not self._fill():
                raise Closed(f"closed with {size_bytes} bytes of a message to come")
            piece = self._take(min(size_bytes, len(self._held)))
            size_bytes -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            yield line
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            yield from self._exactly(size + 2)
        while line != b"\r\n":  # the trailer, which ends as a head does
            line = self._line()
            yield line

    def _rest(self) -> Iterator[bytes]:
        while self._held or self._fill():
            yield self._take(len(self._held))

    def _line(self) -> bytes:
        while (end := self._held.find(b"\r\n")) < 0:
            if not self._fill():
                raise Closed("closed inside a chunk's line")
        return self._take(end + 2)

    def _take(self, size_bytes: int) -> bytes:
        taken = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        return taken

    def _fill(self) -> bool:
        data = self._connection.recv(PIECE_BYTES)
        self._held += data
        return bool(data)
