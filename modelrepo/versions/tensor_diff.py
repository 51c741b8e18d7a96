"""Which tensors two versions differ in, told from the headers of their files and the digests of their chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from modelrepo import layout
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import CheckpointRecord, FileRecord, Manifest
from modelrepo.versions.tensors import Tensor, is_tensor_file, read_header
from modelrepo.window import THREADS

FIRST_READ_BYTES = 128 << 10  # holds most headers, in one request
MOST_READ_BYTES = 64 << 20  # of tensors that share a chunk; beyond it one can only say that they may differ

Kind = Literal["added", "removed", "changed", "perhaps"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor that differs; None on the side that has it not.

    `perhaps`: it lies in a chunk that differs, and there were too many of those to read them.
    """

    checkpoint: str
    name: str
    kind: Kind
    before: TensorFacts | None
    after: TensorFacts | None


@dataclass(frozen=True, slots=True)
class _Part:
    """A run of bytes within one object. `whole`: it is all of the object."""

    sha256: str
    start: int
    size_bytes: int
    whole: bool


@dataclass(frozen=True, slots=True)
class _Placed:
    facts: TensorFacts
    parts: tuple[_Part, ...]


@dataclass(slots=True)
class _Comparison:
    store: ObjectStore
    left_bytes: int

    def tensors(self, files: Iterable[FileRecord]) -> dict[str, _Placed]:
        """Return the tensors of files, by name; a file without a header that can be read has none."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="modelrepo-headers") as pool:
            found = list(pool.map(self._tensors, files))
        return {name: placed for each in found for name, placed in each.items()}

    def kind(self, old: _Placed, new: _Placed) -> Kind | None:
        """Say how two tensors of one name differ; None where they do not."""
        if old.facts != new.facts:
            return "changed"
        if old.parts == new.parts:
            return None
        if all(part.whole for part in (*old.parts, *new.parts)) and _sizes(old) == _sizes(new):
            return "changed"
        if self.left_bytes < 2 * old.facts.size_bytes:
            return "perhaps"
        self.left_bytes -= 2 * old.facts.size_bytes
        return None if self._read(old.parts) == self._read(new.parts) else "changed"

    def _tensors(self, file: FileRecord) -> dict[str, _Placed]:
        starts = [0, *accumulate(chunk.size_bytes for chunk in file.chunks)]
        first = self._read(_parts(file, starts, 0, min(FIRST_READ_BYTES, file.size_bytes)))

        def read(start: int, length: int) -> bytes:
            if start + length <= len(first):
                return first[start : start + length]
            return self._read(_parts(file, starts, start, length))

        header = read_header(file.size_bytes, read)
        if header is None:
            return {}
        return {tensor.name: _placed(file, starts, tensor) for tensor in header.tensors}

    def _read(self, parts: Iterable[_Part]) -> bytes:
        return b"".join(
            self.store.read_range(layout.object_(part.sha256), part.start, part.size_bytes) for part in parts
        )


def compare_tensors(store: ObjectStore, old: Manifest, new: Manifest) -> tuple[TensorChange, ...]:
    """Compare the tensors of every checkpoint by their names, whichever of its files they lie in."""
    changes: list[TensorChange] = []
    comparison = _Comparison(store, MOST_READ_BYTES)
    for name in sorted(old.checkpoints.keys() & new.checkpoints.keys()):
        changes += _compare(comparison, name, old.checkpoints[name], new.checkpoints[name])
    return tuple(changes)


def _compare(
    comparison: _Comparison, checkpoint: str, old: CheckpointRecord, new: CheckpointRecord
) -> Iterator[TensorChange]:
    before, after = (_tensor_files(record) for record in (old, new))
    same = before.keys() & after.keys()
    left = comparison.tensors(file for digest, file in before.items() if digest not in same)
    right = comparison.tensors(file for digest, file in after.items() if digest not in same)
    for name in sorted(left.keys() | right.keys()):
        one, other = left.get(name), right.get(name)
        if one is None and other is not None:
            yield TensorChange(checkpoint, name, "added", None, other.facts)
        elif other is None and one is not None:
            yield TensorChange(checkpoint, name, "removed", one.facts, None)
        elif one is not None and other is not None and (kind := comparison.kind(one, other)) is not None:
            yield TensorChange(checkpoint, name, kind, one.facts, other.facts)


def _tensor_files(record: CheckpointRecord) -> Mapping[str, FileRecord]:
    return {file.sha256: file for file in record.files if is_tensor_file(file.path)}


def _placed(file: FileRecord, starts: Sequence[int], tensor: Tensor) -> _Placed:
    facts = TensorFacts(tensor.dtype, tensor.shape, tensor.size_bytes)
    return _Placed(facts, tuple(_parts(file, starts, tensor.start, tensor.size_bytes)))


def _parts(file: FileRecord, starts: Sequence[int], start: int, size_bytes: int) -> Iterator[_Part]:
    end = start + size_bytes
    for index in range(bisect_right(starts, start) - 1, len(file.chunks)):
        chunk, at = file.chunks[index], starts[index]
        if at >= end:
            return
        low, high = max(start, at), min(end, at + chunk.size_bytes)
        if low < high:
            yield _Part(chunk.sha256, low - at, high - low, high - low == chunk.size_bytes)


def _sizes(placed: _Placed) -> list[int]:
    return [part.size_bytes for part in placed.parts]
