"""Tensors of a checkpoint, as views of shared memory on the CPU or through pinned buffers on a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .pinned_ring import Piece, Ring, bytes_of
from .shards import Shard, shards_of
from .shared_files import PooledFile, SharedFile
from .tensor_headers import BITS, Entry, read_header

TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F4": "float4_e2m1fn_x2", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F16": "float16",
    "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
"""By the format's names; torch has none for F6."""

Slice = tuple[int, int, int]
"""Dimension, start, stop: the part of a tensor that is wanted."""


class Wanted:
    """Which tensors, and which part of each; all of all by default."""

    def __init__(self, names: Iterable[str] | None = None, slices: Mapping[str, Slice] | None = None) -> None:
        if isinstance(names, str):
            raise TypeError("names: give a list of tensors' names, not one text")
        self.names = None if names is None else frozenset(names)
        self.slices = dict(slices or {})

    def wants(self, name: str) -> bool:
        return self.names is None or name in self.names


class Placed:
    """One wanted tensor in an open file; `shape` is the whole tensor's, in torch's elements."""

    def __init__(self, file: SharedFile, name: str, entry: Entry, wanted: Wanted) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]

        self.file, self.entry = file, entry
        found = getattr(torch, TYPES.get(entry.dtype, ""), None)
        if found is None:
            raise ValueError(f"{file.path}: tensor {name!r} has type {entry.dtype}, which this torch does not have")
        self.dtype = found
        self.item_bytes = max(1, BITS[entry.dtype] // 8)
        shape = list(entry.shape)
        if entry.dtype == "F4":  # two in one element
            if not shape or shape[-1] % 2:
                raise ValueError(f"{file.path}: tensor {name!r} has an odd number of F4 in a row")
            shape[-1] //= 2
        self.shape = tuple(shape)
        part = wanted.slices.get(name)
        self.part = None if part is None else self._checked(name, part)

    @property
    def size_bytes(self) -> int:
        return self.item_bytes * _product(self.part_shape)

    @property
    def part_shape(self) -> tuple[int, ...]:
        if self.part is None:
            return self.shape
        dim, start, stop = self.part
        return (*self.shape[:dim], stop - start, *self.shape[dim + 1 :])

    @property
    def first(self) -> int | None:
        """Where its bytes begin in the file; None where the wanted ones do not lie in one run."""
        if self.part is None:
            return self.entry.first
        dim, start, _ = self.part
        if _product(self.shape[:dim]) > 1:
            return None
        return self.entry.first + start * _product(self.shape[dim + 1 :]) * self.item_bytes

    def rows(self) -> Any:
        """Return the wanted bytes as a view of the file's map, of two dimensions: rows and the bytes of each."""
        import torch

        count = self.entry.last - self.entry.first
        flat = torch.frombuffer(self.file.map(), dtype=torch.uint8, count=count, offset=self.entry.first)
        if self.part is None:
            return flat.reshape(1, -1)
        dim, start, stop = self.part
        inner = _product(self.shape[dim + 1 :]) * self.item_bytes
        rows = flat.reshape(_product(self.shape[:dim]), self.shape[dim] * inner)
        return rows[:, start * inner : stop * inner]

    def on_cpu(self) -> Any:
        """Return it as a view of the file; as a copy where torch cannot work at such an offset."""
        import torch

        if self.size_bytes == 0:
            return torch.empty(self.part_shape, dtype=self.dtype)
        if self.entry.first % self.item_bytes:
            return self.rows().clone().reshape(-1).view(self.dtype).reshape(self.part_shape)
        count = self.entry.last - self.entry.first
        flat = torch.frombuffer(self.file.map(), dtype=torch.uint8, count=count, offset=self.entry.first)
        whole = flat.view(self.dtype).reshape(self.shape)
        if self.part is None:
            return whole
        dim, start, stop = self.part
        return whole.narrow(dim, start, stop - start)

    def pieces(self, target: Any, longest: int) -> Iterator[Piece]:
        """Cut it for a ring, whose target are its bytes on the device."""
        if self.first is not None:
            for at in range(0, self.size_bytes, longest):
                part = target[at : at + longest]
                yield self._read(self.first + at), part
            return
        rows = self.rows()
        width = rows.shape[1]
        at_once = max(1, longest // width)
        for row in range(0, rows.shape[0], at_once):
            for column in range(0, width, longest):
                piece = rows[row : row + at_once, column : column + longest]
                begin = row * width + column
                yield _copy(piece), target[begin : begin + piece.numel()]

    def _read(self, at: int) -> Any:
        return lambda buffer: self.file.read_into(bytes_of(buffer), at)

    def _checked(self, name: str, part: Slice) -> Slice:
        dim, start, stop = part
        if not -len(self.shape) <= dim < len(self.shape):
            raise ValueError(f"slices: tensor {name!r} has no dimension {dim}; its shape is {list(self.shape)}")
        dim %= len(self.shape)
        if not 0 <= start <= stop <= self.shape[dim]:
            raise ValueError(f"slices: {start} to {stop} is not within dimension {dim} of {name!r}, {list(self.shape)}")
        return dim, start, stop


def load(
    path: Path, device: str, pool: Mapping[str, PooledFile], wanted: Wanted, *, views: bool = True
) -> dict[str, Any]:
    """Load the wanted tensors of a file, or of a folder's files, on `device`.

    CPU tensors are private views of the file: a write to one changes neither the file nor another process. The memory
    goes with the last of them. Without `views` they are copied as they would be to any device.
    """
    with ExitStack() as opened:
        placed: dict[str, Placed] = {}
        for shard in shards_of(path):
            for name, one in _in_shard(shard, pool, wanted, opened):
                if name in placed:
                    raise ValueError(
                        f"tensor {name!r} is in two files under {path}: load them one by one, as CHECKPOINT/FOLDER"
                    )
                placed[name] = one
        for name in (wanted.names or frozenset()) | wanted.slices.keys():
            if name not in placed:
                raise KeyError(f"{path} has no tensor {name!r}")
        if views and device.partition(":")[0] == "cpu":
            return {name: one.on_cpu() for name, one in placed.items()}
        return _on_device(placed, device)


def _in_shard(
    shard: Shard, pool: Mapping[str, PooledFile], wanted: Wanted, opened: ExitStack
) -> Iterator[tuple[str, Placed]]:
    path, named = shard
    if named is not None and not any(map(wanted.wants, named)):
        return
    file = opened.enter_context(SharedFile(path, pool.get(str(path))))
    header = read_header(file.descriptor, path)
    for name in sorted(named or ()):
        if name not in header:
            raise KeyError(f"{path} has no tensor {name!r}, which the index says is in it")
    for name, entry in header.items():
        if wanted.wants(name) and (named is None or name in named):
            yield name, Placed(file, name, entry, wanted)


def _on_device(placed: Mapping[str, Placed], device: str) -> dict[str, Any]:
    import torch

    on_device: dict[str, Any] = {}
    targets: list[tuple[Placed, Any]] = []
    for name, one in placed.items():
        target = torch.empty(one.size_bytes, dtype=torch.uint8, device=device)
        on_device[name] = target.view(one.dtype).reshape(one.part_shape)
        if one.size_bytes:
            targets.append((one, target))
    if device.partition(":")[0] != "meta":
        ring = Ring(device)
        ring.move(piece for one, target in targets for piece in one.pieces(target, ring.buffer_bytes))
    return on_device


def _copy(piece: Any) -> Any:
    return lambda buffer: buffer.view(piece.shape).copy_(piece)


def _product(extents: Iterable[int]) -> int:
    found = 1
    for extent in extents:
        found *= extent
    return found
