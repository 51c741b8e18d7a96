"""The header of a `.safetensors` file: which tensor lies where. A file with an odd one counts as mere bytes.

The layout is that of https://huggingface.co/docs/safetensors: eight bytes with the length of the header, little-endian,
the header, which is a JSON object, and the tensors, which cover the rest without gap or overlap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SUFFIX = ".safetensors"
LENGTH_BYTES = 8
HEADER_LIMIT_BYTES = 8 << 20  # some 75,000 tensors; parsed, a larger one would not fit the memory of a push
METADATA = "__metadata__"

ReadRange = Callable[[int, int], bytes]
"""Returns bytes of the file, from a start on, as many as asked for, or fewer at its end."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `start` counts from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Where the tensors begin, and each of them in the order in which they lie in the file."""

    size_bytes: int
    tensors: tuple[Tensor, ...]


def is_tensor_file(path: str) -> bool:
    """Say whether a file is one by its name."""
    return path.lower().endswith(SUFFIX)


def read_header(size_bytes: int, read: ReadRange) -> Header | None:
    """Read the header of a file of `size_bytes`; None where it is not one that covers the file exactly."""
    length = int.from_bytes(read(0, LENGTH_BYTES), "little") if size_bytes >= LENGTH_BYTES else 0
    if not 0 < length <= min(HEADER_LIMIT_BYTES, size_bytes - LENGTH_BYTES):
        return None
    text = read(LENGTH_BYTES, length)
    if len(text) != length:
        return None
    try:
        entries = json.loads(text)
        header = LENGTH_BYTES + length
        tensors = (_tensor(name, entry, header) for name, entry in entries.items() if name != METADATA)
        ordered = tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.size_bytes, tensor.name)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Header(header, ordered) if _cover(ordered, header, size_bytes) else None


def stated_size(size_bytes: int, read: ReadRange) -> int:
    """Return the bytes that a file of `size_bytes` should have at least, by what its beginning says of it.

    A file with more than it has was cut short on its way here, or is none of this kind: a page that says "not found".
    """
    length = int.from_bytes(read(0, LENGTH_BYTES), "little") if size_bytes >= LENGTH_BYTES else 0
    stated = LENGTH_BYTES + length
    if stated > size_bytes or length > HEADER_LIMIT_BYTES:
        return stated
    try:
        entries = json.loads(read(LENGTH_BYTES, length))
        ends = [_count(entry["data_offsets"][1]) for name, entry in entries.items() if name != METADATA]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return stated
    return stated + max(ends, default=0)


def _tensor(name: str, entry: Any, header_bytes: int) -> Tensor:
    begin, end = entry["data_offsets"]
    shape = tuple(_count(size) for size in entry["shape"])
    if not isinstance(entry["dtype"], str):
        raise TypeError("dtype is not a text")
    name.encode()  # a lone surrogate is no name
    return Tensor(name, entry["dtype"], shape, header_bytes + _count(begin), _count(_count(end) - begin))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is not a size")
    return value


def _cover(tensors: Iterable[Tensor], start: int, end: int) -> bool:
    edges = [start, *(edge for tensor in tensors for edge in (tensor.start, tensor.start + tensor.size_bytes)), end]
    return all(before == after for before, after in list(pairwise(edges))[::2])
