"""The header of a safetensors file, read without the package and trusted in nothing.

The layout is that of https://huggingface.co/docs/safetensors: eight bytes with the length of the header, little-endian,
the header, a JSON object, and the tensors, which cover the rest without gap or overlap.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
_HEADER_LIMIT_BYTES = 100_000_000
"""The limit of the format itself."""


class Entry:
    """One tensor: its type and shape as the file has them, and its bytes in the file, from `first` to before `last`."""

    def __init__(self, dtype: str, shape: tuple[int, ...], first: int, last: int) -> None:
        self.dtype, self.shape, self.first, self.last = dtype, shape, first, last


def read_header(descriptor: int, path: object) -> dict[str, Entry]:
    """Read what a file holds, by name, in the order of the header.

    Raises: ValueError, naming file and tensor, for a header that is not one of a whole and sound file.
    """
    size = os.fstat(descriptor).st_size
    prefix = os.pread(descriptor, 8, 0)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
    if not 0 < length <= min(size - 8, _HEADER_LIMIT_BYTES):
        raise ValueError(f"{path} is no safetensors file: its header would hold {length} of {size} bytes")
    try:
        tree = json.loads(os.pread(descriptor, length, 8), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: its header cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} is no safetensors file: its header is no object")
    tree.pop("__metadata__", None)
    start = 8 + length
    entries = {name: _entry(name, fields, start, path) for name, fields in tree.items()}
    _check_cover(entries, start, size, path)
    return entries


def _entry(name: str, fields: Any, start: int, path: object) -> Entry:
    try:
        dtype, shape, (begin, end) = fields["dtype"], tuple(map(_count, fields["shape"])), fields["data_offsets"]
        begin, end = _count(begin), _count(end)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: tensor {name!r} is not described as the format wants it") from None
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{path}: tensor {name!r} has type {dtype}, which this reader does not know")
    bits = BITS[dtype]
    for extent in shape:
        bits *= extent
    if end < begin or bits != (end - begin) * 8:
        raise ValueError(f"{path}: tensor {name!r} does not fit its place in the file: {bits} bits at {begin} to {end}")
    return Entry(dtype, shape, start + begin, start + end)


def _check_cover(entries: dict[str, Entry], start: int, size: int, path: object) -> None:
    """Each byte belongs to one tensor: what overlaps or leaves gaps may show one tensor's bytes in another."""
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].first, item[1].last)):
        if entry.first != at:
            found = "overlaps another" if entry.first < at else "leaves a gap before it"
            raise ValueError(f"{path}: tensor {name!r} {found}; each byte must belong to one tensor")
        at = entry.last
    if at != size:
        raise ValueError(f"{path}: its tensors end at byte {at}, and the file at {size}; it was cut short or added to")


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r} is in it twice")
    return found
