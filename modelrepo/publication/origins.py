"""Where the bytes of an object lie before it is in the repository that it is delivered to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelrepo.errors import InvalidInput
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.chunks import Span

RING_BYTES = 1 << 20  # of each hashing thread; stays in the processor's cache


class Origin(Protocol):
    """Bytes that can be delivered as one object. `place` says in which order origins are best read."""

    @property
    def sha256(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def place(self) -> tuple[str, int]: ...

    def read(self) -> bytes:
        """Return the bytes, which are those of `sha256`; raises where they cannot be had any more."""
        ...


@runtime_checkable
class SendsItself(Protocol):
    """What an origin can do that has a shorter way into a store than through this box."""

    def send(self, store: ObjectStore, key: str) -> None:
        """Create `key` in `store` with the bytes; raises as `read` and `ObjectStore.create` do."""
        ...


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """A run of bytes in a file of this box."""

    file: Path
    span: Span
    sha256: str

    @property
    def size_bytes(self) -> int:
        return self.span.size_bytes

    @property
    def place(self) -> tuple[str, int]:
        return (str(self.file), self.span.start)

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            InvalidInput: the file changed after it was hashed.
        """
        data = read_span(self.file, self.span)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InvalidInput(f"{self.file} changed while it was being pushed; push again")
        return data


def read_span(file: Path, span: Span) -> bytes:
    """Read a run of bytes; raises InvalidInput where the file has vanished or become shorter."""
    with _opened(file) as stream:
        stream.seek(span.start)
        pieces, left = [], span.size_bytes
        while left:
            piece = stream.read(left)
            if not piece:
                raise _shorter(file)
            pieces.append(piece)
            left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def stream_span(file: Path, span: Span) -> Iterator[memoryview]:
    """Yield a run of bytes through one small buffer, for first touch of fresh memory costs more than hashing does."""
    buffer = memoryview(bytearray(min(RING_BYTES, span.size_bytes)))
    with _opened(file) as stream:
        stream.seek(span.start)
        left = span.size_bytes
        while left:
            count = stream.readinto(buffer[: min(left, len(buffer))])
            if not count:
                raise _shorter(file)
            yield buffer[:count]
            left -= count


def _opened(file: Path) -> FileIO:
    try:
        return FileIO(file)
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} vanished while it was being pushed; push again") from error


def _shorter(file: Path) -> InvalidInput:
    return InvalidInput(f"{file} became shorter while it was being pushed; push again")
