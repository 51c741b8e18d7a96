"""Read safetensors files without the package: a header, then views into a private memory map."""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import Any

_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_HEADER_LIMIT_BYTES = 100_000_000
"""The limit of the format itself."""

_maps: list[mmap.mmap] = []
"""Kept for the life of the process: a tensor from a buffer does not keep the map alive."""


def load(path: Path, device: str) -> dict[str, Any]:
    """Load one `.safetensors` file, or all of a folder's, as tensors on `device`.

    CPU tensors are private views of the file: a write to one changes neither the file nor another process.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path} holds no .safetensors file")
    tensors: dict[str, Any] = {}
    for file in files:
        for name, tensor in _load_file(file).items():
            if name in tensors:
                raise ValueError(f"tensor {name!r} is in two files under {path}; load them one by one")
            tensors[name] = tensor if device == "cpu" else tensor.to(device)
    return tensors


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read a file's header: what each tensor is, and where the data starts in the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 < length <= min(size - 8, _HEADER_LIMIT_BYTES):
            raise ValueError(f"{path} is no safetensors file: its header would hold {length} of {size} bytes")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _load_file(path: Path) -> dict[str, Any]:
    import torch  # type: ignore[import-not-found,unused-ignore]

    header, start = read_header(path)
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    _maps.append(view)
    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        if entry["dtype"] not in _TYPES:
            raise ValueError(f"{path}: tensor {name!r} has type {entry['dtype']}, which this reader does not know")
        dtype = getattr(torch, _TYPES[entry["dtype"]])
        item_bytes = torch.empty(0, dtype=dtype).element_size()
        first, last = entry["data_offsets"]
        count = 1
        for extent in entry["shape"]:
            count *= extent
        if not 0 <= first <= last <= len(view) - start or last - first != count * item_bytes:
            raise ValueError(f"{path}: tensor {name!r} does not fit its place in the file")
        if count == 0:
            tensors[name] = torch.empty(entry["shape"], dtype=dtype)
            continue
        offset = start + first
        if offset % item_bytes:
            flat = torch.frombuffer(bytearray(view[offset : start + last]), dtype=dtype)
        else:
            flat = torch.frombuffer(view, dtype=dtype, count=count, offset=offset)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors
