"""What two versions of a model differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import FileRecord, Manifest
from modelrepo.versions.tensor_diff import TensorChange, compare_tensors
from modelrepo.versions.version import Version


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that differs; `new_bytes` counts the chunks of the second that the first lacks."""

    path: str
    kind: Literal["added", "removed", "changed"]
    before_bytes: int | None
    after_bytes: int | None
    new_bytes: int


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value of model.yaml that differs, by JSON pointer; None where there is none."""

    pointer: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class RequirementChange:
    """A package that differs; None where it is not installed."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """Everything that differs between two versions. Paths of checkpoint files begin with the checkpoint's name."""

    before: Version
    after: Version
    code: tuple[FileChange, ...]
    checkpoints: tuple[FileChange, ...]
    spec: tuple[ValueChange, ...]
    config: tuple[ValueChange, ...]
    requirements: tuple[RequirementChange, ...]
    python: tuple[str, str] | None
    tensors: tuple[TensorChange, ...] = ()

    @property
    def empty(self) -> bool:
        parts = (self.code, self.checkpoints, self.spec, self.config, self.requirements)
        return not any(parts) and self.python is None


def compare(before: Version, after: Version, store: ObjectStore) -> VersionDiff:
    """Compare two versions, of one model or of two; of tensor files the headers are read from `store`."""
    old, new = before.manifest, after.manifest
    values = tuple(_values("", old.spec, new.spec))
    python = (old.environment.python, new.environment.python)
    return VersionDiff(
        before,
        after,
        code=_files(old, {file.path: file for file in old.code}, {file.path: file for file in new.code}),
        checkpoints=_files(old, _checkpoint_files(old), _checkpoint_files(new)),
        spec=tuple(change for change in values if not _is_config(change)),
        config=tuple(change for change in values if _is_config(change)),
        requirements=_requirements(old, new),
        python=None if python[0] == python[1] else python,
        tensors=compare_tensors(store, old, new),
    )


def _is_config(change: ValueChange) -> bool:
    return change.pointer == "/config" or change.pointer.startswith("/config/")


def _checkpoint_files(manifest: Manifest) -> dict[str, FileRecord]:
    return {f"{name}/{file.path}": file for name, record in manifest.checkpoints.items() for file in record.files}


def _files(old: Manifest, before: Mapping[str, FileRecord], after: Mapping[str, FileRecord]) -> tuple[FileChange, ...]:
    known, changes = old.objects(), []
    for path in sorted(before.keys() | after.keys()):
        left, right = before.get(path), after.get(path)
        if right is None and left is not None:
            changes.append(FileChange(path, "removed", left.size_bytes, None, 0))
        elif right is not None and (left is None or (left.sha256, left.mode) != (right.sha256, right.mode)):
            fresh = sum(
                {chunk.sha256: chunk.size_bytes for chunk in right.chunks if chunk.sha256 not in known}.values()
            )
            kind: Literal["added", "changed"] = "added" if left is None else "changed"
            changes.append(FileChange(path, kind, left.size_bytes if left else None, right.size_bytes, fresh))
    return tuple(changes)


def _values(pointer: str, before: Any, after: Any) -> Iterator[ValueChange]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from _values(f"{pointer}/{step}", before.get(key), after.get(key))
    elif not _equal(before, after):
        yield ValueChange(pointer, before, after)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, Sequence) and isinstance(after, Sequence) and not isinstance(before, str):
        return list(before) == list(after)
    return bool(before == after) and isinstance(before, bool) == isinstance(after, bool)


def _requirements(old: Manifest, new: Manifest) -> tuple[RequirementChange, ...]:
    before, after = _pins(old), _pins(new)
    return tuple(
        RequirementChange(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _pins(manifest: Manifest) -> dict[str, str]:
    return manifest.environment.pins()
