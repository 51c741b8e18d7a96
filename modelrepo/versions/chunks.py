"""Where a writer cuts a file into chunks.

The format knows only that a file is a list of chunks: readers take any cuts, so this rule may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1 << 20
WHOLE_UP_TO_BYTES = 64 * MIB  # below this a file is one object: fewer requests than bytes would justify
PIECE_BYTES = 16 * MIB  # between 32 (faster pulls) and 8 (less sent again after an edit)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes inside a file."""

    start: int
    size_bytes: int


def cut(size_bytes: int) -> Iterator[Span]:
    """Yield the spans that cover a file of `size_bytes`, in order; an empty file has none."""
    piece = size_bytes if size_bytes <= WHOLE_UP_TO_BYTES else PIECE_BYTES
    start = 0
    while start < size_bytes:
        yield Span(start, min(piece, size_bytes - start))
        start += piece
