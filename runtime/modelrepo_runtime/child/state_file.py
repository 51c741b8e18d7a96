"""The file that a stage's state is kept in: what it is made of as JSON, then the bytes of tensors and arrays.

    0   magic, length of the header, length of the file, sha256 of the header: `<8sQQ32s`, padded to 64 bytes
    64  the header: JSON, then zeros up to a multiple of 4,096
        blocks: the bytes of one tensor, array or bytes object each, beginning at multiples of 64
        the last 64 bytes: sha256 of the header and the file's length, then zeros; written last

In the header a list is `{"l": [..]}`, a tuple `{"t": [..]}`, a mapping `{"m": {..}}`, bytes `{"b": [place, length]}`, a
tensor or an array `{"T" or "A": [dtype, shape, place, length]}`, and what JSON has itself stands as it is. Nothing in a
file is ever executed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import mmap
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

SUFFIX = ".state"
MAGIC = b"MRSTATE1"
_PREFIX = struct.Struct("<8sQQ32s")
_ALIGN_BYTES = 64
_HEADER_ALIGN_BYTES = 4096
"""So that a state whose counters grow keeps its size, and its file can be written over."""
_TRAILER_BYTES = 64
_HEADER_LIMIT_BYTES = 64 << 20
_PLAIN = (type(None), bool, int, float, str)
_SAME_BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


class TornState(ValueError):
    """A file is no whole state."""


class Block(NamedTuple):
    """Bytes that a state holds: where they go in the file, and what writes them there."""

    place: int
    length: int
    write: Callable[[mmap.mmap, int], None]


class Packed(NamedTuple):
    """A state that is ready to be written; its tensors are not copied yet."""

    header: bytes
    blocks: list[Block]
    start: int
    """Where blocks begin."""
    size_bytes: int


def pack(value: Mapping[str, Any], about: Mapping[str, Any]) -> Packed:
    """Look through a state. Raises TypeError that names the key of what no file can hold."""
    blocks: list[Block] = []
    try:
        node = _write_mapping(value, "state", blocks)
        text = json.dumps({"about": dict(about), "order": sys.byteorder, "value": node}, separators=(",", ":"))
    except RecursionError:
        raise TypeError("cannot save the state: it holds itself, or nests too deeply") from None
    header = text.encode("ascii")
    start = _up(_ALIGN_BYTES + len(header), _HEADER_ALIGN_BYTES)
    last = blocks[-1].place + blocks[-1].length if blocks else 0
    return Packed(header, blocks, start, start + _up(last, _ALIGN_BYTES) + _TRAILER_BYTES)


def write(packed: Packed, view: mmap.mmap) -> None:
    """Write a state into a map of a file that has its size. The trailer, which makes it whole, comes last."""
    view[packed.size_bytes - _TRAILER_BYTES : packed.size_bytes] = bytes(_TRAILER_BYTES)
    for block in packed.blocks:
        block.write(view, packed.start + block.place)
    digest = hashlib.sha256(packed.header).digest()
    prefix = _PREFIX.pack(MAGIC, len(packed.header), packed.size_bytes, digest)
    view[: len(prefix)] = prefix
    view[_ALIGN_BYTES : _ALIGN_BYTES + len(packed.header)] = packed.header
    end = packed.size_bytes - _TRAILER_BYTES
    view[end : end + 32] = _seal(packed.header, packed.size_bytes)


def read_about(path: Path) -> dict[str, Any]:
    """Return what a file says of itself. Raises TornState where it is not whole, and OSError."""
    header, _ = _read_header(path)
    about: dict[str, Any] = header["about"]
    return about


def read(path: Path) -> dict[str, Any]:
    """Return the state that a file holds, tensors on the CPU; none is a view of the file. Raises as `read_about`."""
    header, start = _read_header(path)
    if header["order"] != sys.byteorder:
        raise TornState(f"{path} was written on a box with another order of bytes ({header['order']})")
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    # Not closed: a view that torch still has of it would make that an error. It goes with its last reference.
    value = _read_node(header["value"], view, start, path)
    if not isinstance(value, dict):
        raise TornState(f"{path} holds no mapping")
    return value


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_ALIGN_BYTES)
        if len(prefix) < _ALIGN_BYTES or not prefix.startswith(MAGIC):
            raise TornState(f"{path} is no state")
        _, length, whole, digest = _PREFIX.unpack(prefix[: _PREFIX.size])
        if whole != size or not 0 < length <= min(size, _HEADER_LIMIT_BYTES):
            raise TornState(f"{path} has {size} bytes of {whole}")
        text = file.read(length)
        file.seek(max(0, size - _TRAILER_BYTES))
        if hashlib.sha256(text).digest() != digest or file.read(32) != _seal(text, size):
            raise TornState(f"{path} was not written to its end")
    header = json.loads(text)
    if not isinstance(header, dict) or not isinstance(header.get("about"), dict):
        raise TornState(f"{path} is no state")
    return header, _up(_ALIGN_BYTES + length, _HEADER_ALIGN_BYTES)


def _seal(header: bytes, size: int) -> bytes:
    return hashlib.sha256(header + struct.pack("<Q", size)).digest()


def _kind(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__name__}".replace("a builtins.", "a ")


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _write_mapping(value: Any, where: str, blocks: list[Block]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"cannot save {where}: a mapping is wanted, found {_kind(value)}")
    node: dict[str, Any] = {}
    for key, member in value.items():
        if type(key) is not str:
            raise TypeError(f"cannot save {where}: its key {key!r} is no text")
        node[key] = _write_node(member, f"{where}[{key!r}]", blocks)
    return {"m": node}


def _write_node(value: Any, where: str, blocks: list[Block]) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return _write_mapping(value, where, blocks)
    if type(value) in (list, tuple):
        members = [_write_node(member, f"{where}[{at}]", blocks) for at, member in enumerate(value)]
        return {"l" if type(value) is list else "t": members}
    if type(value) is bytes:
        return {"b": _add(blocks, len(value), lambda view, at: _put(view, at, value))}
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return {"T": _write_tensor(torch, value, where, blocks)}
    if numpy is not None and type(value) is numpy.ndarray:
        return {"A": _write_array(numpy, value, where, blocks)}
    raise TypeError(
        f"cannot save {where}: it is {_kind(value)}; a state holds numbers, texts, True, False, None, bytes, tensors, "
        "numpy arrays, and lists, tuples and dicts of these"
    )


def _write_tensor(torch: Any, tensor: Any, where: str, blocks: list[Block]) -> list[Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type == "meta":
        raise TypeError(f"cannot save {where}: it is no dense tensor with data; save what it is made of")
    length = tensor.numel() * tensor.element_size()
    place = _add(blocks, length, lambda view, at: _put_tensor(torch, tensor, view, at, length))
    return [str(tensor.dtype).partition(".")[2], list(tensor.shape), *place]


def _write_array(numpy: Any, array: Any, where: str, blocks: list[Block]) -> list[Any]:
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"cannot save {where}: an array of {array.dtype} has no plain bytes; save what it is made of")

    def put(view: mmap.mmap, at: int) -> None:
        if array.nbytes:
            numpy.ndarray(array.shape, array.dtype, buffer=view, offset=at)[...] = array

    return [array.dtype.str, list(array.shape), *_add(blocks, array.nbytes, put)]


def _add(blocks: list[Block], length: int, put: Callable[[mmap.mmap, int], None]) -> list[int]:
    place = _up(blocks[-1].place + blocks[-1].length, _ALIGN_BYTES) if blocks else 0
    blocks.append(Block(place, length, put))
    return [place, length]


def _put(view: mmap.mmap, at: int, data: bytes) -> None:
    view[at : at + len(data)] = data


def _put_tensor(torch: Any, tensor: Any, view: mmap.mmap, at: int, length: int) -> None:
    """Copy a tensor from whatever device it is on, bit by bit: as whole numbers, which no arithmetic touches."""
    if not length:
        return
    with torch.no_grad():
        source = tensor.detach().resolve_conj().resolve_neg()
        target = torch.frombuffer(view, dtype=torch.uint8, count=length, offset=at)
        plain = _SAME_BITS.get(tensor.element_size())
        dtype = tensor.dtype if plain is None else getattr(torch, plain)
        target.view(dtype).view(tensor.shape).copy_(source.view(dtype))


def _read_node(node: Any, view: mmap.mmap, start: int, path: Path) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "m":
        return {key: _read_node(member, view, start, path) for key, member in content.items()}
    if kind in ("l", "t"):
        members = [_read_node(member, view, start, path) for member in content]
        return members if kind == "l" else tuple(members)
    place, length = content[-2:]
    first = start + place
    if not (isinstance(place, int) and isinstance(length, int) and place >= 0 and first + length <= len(view)):
        raise TornState(f"{path} names bytes that it does not have")
    if kind == "b":
        return view[first : first + length]
    return (_read_tensor if kind == "T" else _read_array)(content, view, first, length, path)


def _read_tensor(content: list[Any], view: mmap.mmap, first: int, length: int, path: Path) -> Any:
    import torch  # type: ignore[import-not-found,unused-ignore]

    name, shape = content[:2]
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise TornState(f"{path} holds a tensor of type {name}, which torch {torch.__version__} does not know")
    tensor = torch.empty(shape, dtype=dtype)
    if tensor.numel() * tensor.element_size() != length:
        raise TornState(f"{path}: a tensor does not fit its bytes")
    if length:
        held = torch.frombuffer(view, dtype=torch.uint8, count=length, offset=first)
        tensor.view(-1).view(torch.uint8).copy_(held)
    return tensor


def _read_array(content: list[Any], view: mmap.mmap, first: int, length: int, path: Path) -> Any:
    numpy = importlib.import_module("numpy")
    dtype = numpy.dtype(content[0])
    if dtype.hasobject or math.prod(content[1]) * dtype.itemsize != length:
        raise TornState(f"{path}: an array does not fit its bytes")
    array = numpy.empty(content[1], dtype)
    if length:
        array[...] = numpy.ndarray(content[1], dtype, buffer=view, offset=first)
    return array
