"""Where a writer cuts a file into chunks.

The format knows only that a file is a list of chunks: readers take any cuts, so these rules may change
(docs/decisions/0015-where-files-are-cut.md has the reasons and the figures).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from modelrepo.versions.tensors import Header, Tensor, is_tensor_file

MIB = 1 << 20
WHOLE_UP_TO_BYTES = 64 * MIB  # below this a file is one object: fewer requests than bytes would justify
PIECE_BYTES = 16 * MIB  # between 32 (fewer requests) and 8 (less sent again after an edit)
OWN_CHUNKS_FROM_BYTES = MIB  # a tensor of this size has chunks of its own; smaller neighbours share one
GROUP_BYTES = 4 * MIB  # what a shared chunk holds on average; so few grow to PIECE_BYTES, where they must end


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes inside a file."""

    start: int
    size_bytes: int


def cut(size_bytes: int) -> Iterator[Span]:
    """Yield the spans that cover a file of `size_bytes`, in order; an empty file has none."""
    return pieces(0, size_bytes, size_bytes if size_bytes <= WHOLE_UP_TO_BYTES else PIECE_BYTES)


def cut_tensors(header: Header) -> Iterator[Span]:
    """Yield the spans of a tensor file, in order: its header, then each large tensor and each group of small ones.

    The cuts in a large tensor count from its own start, so they stay where they are whatever comes before it. One file
    of small tensors only, no larger than one group, is a single span.
    """
    size_bytes = header.size_bytes + sum(tensor.size_bytes for tensor in header.tensors)
    if size_bytes <= PIECE_BYTES and not any(_is_large(tensor) for tensor in header.tensors):
        yield Span(0, size_bytes)
        return
    yield from pieces(0, header.size_bytes, PIECE_BYTES)
    small: list[Tensor] = []
    for tensor in header.tensors:
        if _is_large(tensor):
            yield from _groups(small)
            small = []
            yield from pieces(tensor.start, tensor.size_bytes, PIECE_BYTES)
        else:
            small.append(tensor)
    yield from _groups(small)


def pieces(start: int, size_bytes: int, piece_bytes: int) -> Iterator[Span]:
    """Yield a run of bytes in spans of `piece_bytes`; the last may be smaller."""
    for offset in range(0, size_bytes, max(1, piece_bytes)):
        yield Span(start + offset, min(piece_bytes, size_bytes - offset))


def cutting_rule(path: str) -> str:
    """Name the rule by which a file of this name is cut, so that what was found by another is not taken for it."""
    sizes = (WHOLE_UP_TO_BYTES, PIECE_BYTES, OWN_CHUNKS_FROM_BYTES, GROUP_BYTES)
    return f"{'tensors' if is_tensor_file(path) else 'pieces'}-1-" + "-".join(map(str, sizes))


def _is_large(tensor: Tensor) -> bool:
    return tensor.size_bytes >= OWN_CHUNKS_FROM_BYTES


def _groups(small: Iterable[Tensor]) -> Iterator[Span]:
    start = held = 0
    for tensor in small:
        if held and held + tensor.size_bytes > PIECE_BYTES:
            yield from pieces(start, held, PIECE_BYTES)
            held = 0
        if not held:
            start = tensor.start
        held += tensor.size_bytes
        if _ends_group(tensor):
            yield from pieces(start, held, PIECE_BYTES)
            held = 0
    yield from pieces(start, held, PIECE_BYTES)


def _ends_group(tensor: Tensor) -> bool:
    """Say by its name and size alone whether a group ends with this tensor, so that a change moves no cut after it."""
    lot = int.from_bytes(hashlib.blake2b(tensor.name.encode(), digest_size=8).digest(), "big")
    return lot * GROUP_BYTES < tensor.size_bytes << 64
