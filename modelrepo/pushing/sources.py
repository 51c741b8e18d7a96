"""What can be packed: files that can be read in pieces, wherever they lie."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

from modelrepo.publication.origins import Origin
from modelrepo.versions.chunks import Span
from modelrepo.versions.manifest import FileRecord


class Source(Protocol):
    """A file that can be read in pieces, wherever it lies; `path` is the one that it is packed as."""

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...

    def read(self, span: Span) -> bytes:
        """Return the bytes of a span; raises InvalidInput where there are fewer."""
        ...

    def stream(self, span: Span) -> Iterator[bytes | memoryview]:
        """Yield the bytes of a span piece by piece; each is only good until the next."""
        ...

    def origin(self, span: Span, sha256: str) -> Origin:
        """Say where the bytes of a span can be read once more."""
        ...

    def identity(self) -> Hashable:
        """Return what changes when the file does."""
        ...


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file that was hashed: what it was when that began (wall time, ns), and still was when it ended."""

    source: Source
    identity: Hashable
    began_ns: int
    record: FileRecord
