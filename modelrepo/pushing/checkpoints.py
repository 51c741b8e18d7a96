"""Where the bytes of `checkpoints:` come from: a path, another version, a bucket, the Hugging Face Hub."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelrepo.contract import spec_from_json
from modelrepo.contract.spec import CheckpointSource, ModelSpec
from modelrepo.errors import InvalidCheckpoint, MissingExtra
from modelrepo.pushing.choosing import chosen
from modelrepo.pushing.earlier import Earlier
from modelrepo.pushing.ignoring import never_packed
from modelrepo.pushing.packing import SourceFile, source_file
from modelrepo.pushing.stored_sources import StoredCheckpoint, find_stored
from modelrepo.versions.manifest import CheckpointRecord, Manifest
from modelrepo.versions.paths import name_problem, path_problem
from modelrepo.versions.tensors import is_tensor_file, stated_size

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_POINTER_LIMIT_BYTES = 1024  # the specification's own limit
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".npz", ".npy", ".h5", ".msgpack")

_COMMIT = re.compile("[0-9a-f]{40}")

Lookup = Callable[[str], Manifest]
"""Finds the manifest of a reference such as `video-gen@v41`."""


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """A checkpoint whose files are on this box."""

    files: tuple[SourceFile, ...]
    single: bool
    source: Mapping[str, Any]


FoundCheckpoint = SourceCheckpoint | StoredCheckpoint | CheckpointRecord


def find_checkpoints(
    folder: Path, spec: ModelSpec, lookup: Lookup, *, earlier: Earlier = tuple
) -> dict[str, FoundCheckpoint]:
    """Find every checkpoint of a model; a CheckpointRecord is one whose bytes the repository already has.

    What an `earlier` version took from the same commit of the Hub, or from a bucket with the same size and etag, is not
    read again.

    Raises:
        InvalidCheckpoint: one is missing, empty, cut short, a Git-LFS pointer, or has a name that cannot be packed.
        MissingExtra: a source needs a library that is not installed.
    """
    found: dict[str, FoundCheckpoint] = {}
    for name, source in spec.checkpoints.items():
        problem = name_problem(name)
        if problem is not None:
            raise InvalidCheckpoint(f"checkpoint name {name!r} {problem}; rename it in model.yaml")
        if source.kind == "repository":
            found[name] = _from_repository(name, source, lookup)
        elif source.kind == "hf":
            found[name] = _known_commit(source, earlier) or _from_hub(name, source)
        elif source.kind == "bucket":
            found[name] = find_stored(name, source, earlier)
        else:
            found[name] = _from_path(name, source, folder)
    return found


def _from_path(name: str, source: CheckpointSource, folder: Path) -> SourceCheckpoint:
    path = Path(os.path.normpath(folder.absolute() / Path(source.source).expanduser()))
    if folder.absolute().is_relative_to(path):
        raise InvalidCheckpoint(f"checkpoint {name!r} is the model's own folder; put its files into one of their own")
    if path.is_relative_to(folder.absolute()):
        part = never_packed(path.relative_to(folder.absolute()).as_posix())
        if part is not None:
            raise InvalidCheckpoint(f"checkpoint {name!r} lies in {part}, which is never packed; move it elsewhere")
    return _local(name, source, path, {"source": source.source})


def _local(name: str, source: CheckpointSource, path: Path, record: Mapping[str, Any]) -> SourceCheckpoint:
    if not path.exists():
        broken = path.is_symlink()
        what = f"{path} is a symlink to {path.readlink()}, which is missing" if broken else f"{path} does not exist"
        raise InvalidCheckpoint(f"checkpoint {name!r} is missing: {what}; download it, or correct model.yaml")
    if path.is_file():
        files: tuple[SourceFile, ...] = (_file(name, path.name, path),)
        single = True
    else:
        everything = tuple(_walk(name, path, "", ()))
        if not everything:
            raise InvalidCheckpoint(f"checkpoint {name!r} is empty: {path} holds no file; download it")
        files = tuple(file for file in everything if chosen(source, file.path))
        if not files:
            raise InvalidCheckpoint(
                f"checkpoint {name!r}: include and exclude leave none of the {len(everything)} files in {path}"
            )
        single = False
    for file in files:
        _check_bytes(name, file)
    if not any(file.size_bytes for file in files):
        raise InvalidCheckpoint(f"checkpoint {name!r} is empty: the files in {path} have no bytes; download it again")
    return SourceCheckpoint(files, single, record)


def _walk(name: str, folder: Path, relative: str, trail: tuple[Path, ...]) -> Iterator[SourceFile]:
    here = folder.resolve()
    if here in trail:
        raise InvalidCheckpoint(f"checkpoint {name!r}: symlinks at {relative!r} lead in a circle; remove them")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for entry in names:
        path, inside = folder / entry, relative + entry
        if entry == ".git":  # a clone's history would double every weight
            continue
        if path.is_dir():
            yield from _walk(name, path, inside + "/", (*trail, here))
        else:
            yield _file(name, inside, path)


def _file(name: str, relative: str, path: Path) -> SourceFile:
    problem = path_problem(relative)
    if problem is not None:
        raise InvalidCheckpoint(f"checkpoint {name!r}: the name {relative!r} {problem}; rename it")
    try:
        status = path.stat()
    except OSError as error:
        what = "is a broken symlink" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise InvalidCheckpoint(f"checkpoint {name!r}: {path} {what}; download it again") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidCheckpoint(f"checkpoint {name!r}: {path} is neither file nor folder; remove it")
    return source_file(relative, path, status)


def _check_bytes(name: str, file: SourceFile) -> None:
    if file.size_bytes == 0 and file.path.lower().endswith(WEIGHT_SUFFIXES):
        raise InvalidCheckpoint(f"checkpoint {name!r} is empty: {file.file} has no bytes; download it again")
    if 0 < file.size_bytes <= LFS_POINTER_LIMIT_BYTES:
        with file.file.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InvalidCheckpoint(
                    f"checkpoint {name!r}: {file.file} is a Git-LFS pointer, not the weights; run `git lfs pull`"
                )
    if is_tensor_file(file.path):
        with file.file.open("rb") as stream:
            stated = stated_size(file.size_bytes, lambda start, size: os.pread(stream.fileno(), size, start))
        if stated > file.size_bytes:
            raise InvalidCheckpoint(
                f"checkpoint {name!r}: {file.file} is cut short, or no safetensors file: by its beginning it has "
                f"{stated:,} bytes at least, and there are {file.size_bytes:,}; download it again"
            )


def _from_repository(name: str, source: CheckpointSource, lookup: Lookup) -> CheckpointRecord:
    reference, slash, other = source.source.removeprefix("modelrepo:").rpartition("/")
    if not slash or not reference or not other:
        raise InvalidCheckpoint(
            f"checkpoint {name!r}: {source.source!r} is not of the form modelrepo:MODEL@VERSION/CHECKPOINT"
        )
    manifest = lookup(reference)
    if other not in manifest.checkpoints:
        known = ", ".join(sorted(manifest.checkpoints)) or "none"
        raise InvalidCheckpoint(
            f"checkpoint {name!r}: {manifest.model}@{manifest.version} has no checkpoint {other!r}; it has {known}"
        )
    record = manifest.checkpoints[other]
    files = record.files if record.single else tuple(file for file in record.files if chosen(source, file.path))
    if not files:
        raise InvalidCheckpoint(f"checkpoint {name!r}: include and exclude leave no file of {source.source}")
    resolved = {"source": source.source, "model": manifest.model, "version": manifest.version, "checkpoint": other}
    return CheckpointRecord(files, record.single, resolved)


def _known_commit(source: CheckpointSource, earlier: Earlier) -> CheckpointRecord | None:
    commit = source.source.rpartition("@")[2]
    if not _COMMIT.fullmatch(commit):
        return None  # a branch, which may have moved
    for manifest in earlier():
        for name, theirs in spec_from_json(manifest.spec).checkpoints.items():
            record = manifest.checkpoints.get(name)
            if theirs == source and record is not None and (record.source or {}).get("commit") == commit:
                return record
    return None


def _from_hub(name: str, source: CheckpointSource) -> SourceCheckpoint:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtra(f"checkpoint {name!r} from {source.source}", "hf") from error
    repository, _, revision = source.source.removeprefix("hf://").partition("@")
    if repository.count("/") != 1 or not revision:
        raise InvalidCheckpoint(f"checkpoint {name!r}: {source.source!r} is not of the form hf://ORG/NAME@COMMIT")
    snapshot = Path(
        hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(source.include) or None,
            ignore_patterns=list(source.exclude) or None,
        )
    )
    return _local(name, source, snapshot, {"source": source.source, "commit": snapshot.name})
