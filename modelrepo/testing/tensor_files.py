"""Write `.safetensors` files, for tests and benchmarks, without numpy or torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod

ITEM_BYTES = {"F32": 4, "BF16": 2, "U8": 1}


def tensor_bytes(
    tensors: Mapping[str, bytes],
    *,
    dtype: str = "U8",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    pad: int = 0,
) -> bytes:
    """Return a file that holds `tensors` in the order given; `pad` grows its header by as many bytes.

    Each tensor has one dimension unless `shapes` says more.
    """
    entries: dict[str, object] = {"__metadata__": {"pad": " " * pad}} if pad else {}
    start = 0
    for name, data in tensors.items():
        shape = (shapes or {}).get(name, (len(data) // ITEM_BYTES[dtype],))
        assert prod(shape) * ITEM_BYTES[dtype] == len(data), f"{name} has {len(data)} bytes, which are not {shape}"
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + len(data)]}
        start += len(data)
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # as the usual writers do
    return b"".join([len(header).to_bytes(8, "little"), header, *tensors.values()])
