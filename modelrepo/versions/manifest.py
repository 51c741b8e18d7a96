"""The manifest: what a version consists of. Its bytes are canonical JSON, and their sha256 is the version's digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelrepo import canonical
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import Corrupt
from modelrepo.formats import FORMAT, check_format
from modelrepo.versions.paths import collision, name_problem, path_problem

PLAIN, EXECUTABLE = 0o644, 0o755
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One object that a file is made of. `sha256` is 64 hex digits."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file: `path` is relative with forward slashes; `mode` is 0o644 or 0o755."""

    path: str
    mode: int
    size_bytes: int
    sha256: str
    chunks: tuple[ChunkRecord, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "mode": f"{self.mode:04o}",
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "chunks": [{"sha256": chunk.sha256, "size_bytes": chunk.size_bytes} for chunk in self.chunks],
        }


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One named checkpoint; `single` means that it is a file rather than a folder of files."""

    files: tuple[FileRecord, ...]
    single: bool = False
    source: Mapping[str, Any] | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [file.to_json() for file in self.files],
            "single": self.single,
            "source": None if self.source is None else dict(self.source),
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version, whole. `push` is random, so that two pushes never write the same bytes for one id."""

    model: str
    version: str
    created_at: str
    spec: Mapping[str, Any]
    environment: EnvironmentRecord
    code: tuple[FileRecord, ...]
    checkpoints: Mapping[str, CheckpointRecord] = field(default_factory=dict)
    author: str | None = None
    message: str | None = None
    git_commit: str | None = None
    git_dirty: bool = False
    push: str = ""
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "model": self.model,
            "version": self.version,
            "created_at": self.created_at,
            "author": self.author,
            "message": self.message,
            "git": {"commit": self.git_commit, "dirty": self.git_dirty},
            "push": self.push,
            "spec": dict(self.spec),
            "environment": self.environment.to_json(),
            "code": [file.to_json() for file in self.code],
            "checkpoints": {name: record.to_json() for name, record in self.checkpoints.items()},
        }

    def to_bytes(self) -> bytes:
        """Return the canonical JSON that is published; raises InvalidInput for what it cannot hold."""
        return canonical.dumps(self.to_json())

    @property
    def digest(self) -> str:
        """The version's digest, 64 hex digits: of the bytes that *this* writer would publish."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def content_digest(self) -> str:
        """Return a digest of what runs: equal for two pushes of the same files, spec and environment."""

        def facts(files: Iterable[FileRecord]) -> list[list[str]]:
            return [[file.path, f"{file.mode:04o}", file.sha256] for file in files]

        return canonical.digest(
            {
                "spec": dict(self.spec),
                "environment": self.environment.digest,
                "code": facts(self.code),
                "checkpoints": {name: facts(record.files) for name, record in self.checkpoints.items()},
            }
        )

    def files(self) -> Iterator[FileRecord]:
        """Yield every code and checkpoint file."""
        yield from self.code
        for record in self.checkpoints.values():
            yield from record.files

    def objects(self) -> dict[str, int]:
        """Return the digest and size of every object that the files are made of."""
        return {chunk.sha256: chunk.size_bytes for file in self.files() for chunk in file.chunks}

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files())

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "manifest.json") -> Manifest:
        """Read a manifest of this format or an older one.

        Raises:
            NewerFormat: it was written by a newer modelrepo, or requires what this one does not know.
            Corrupt: it is no manifest, or holds a path that would leave its folder.
        """
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"{name} is not JSON: {error}; restore it from a copy", path=name) from error
        if not isinstance(tree, dict):
            raise Corrupt(f"{name} is not a JSON object; restore it from a copy", path=name)
        check_format(tree, name)
        try:
            return cls._from_tree(tree, name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"{name} is no manifest: {_problem(error)}; restore it from a copy", path=name) from error

    @classmethod
    def _from_tree(cls, tree: dict[str, Any], name: str) -> Manifest:
        git = tree.get("git") or {}
        return cls(
            model=_text(tree, "model"),
            version=_text(tree, "version"),
            created_at=_text(tree, "created_at"),
            spec=dict(tree["spec"]),
            environment=_environment(tree["environment"], name),
            code=read_files(tree["code"], name),
            checkpoints={
                _checkpoint_name(label, name): _read_checkpoint(record, f"{name}, checkpoint {label!r}")
                for label, record in dict(tree.get("checkpoints") or {}).items()
            },
            author=tree.get("author"),
            message=tree.get("message"),
            git_commit=git.get("commit"),
            git_dirty=bool(git.get("dirty", False)),
            push=str(tree.get("push", "")),
            format=tree.get("format", 1),
        )


def read_files(records: Any, name: str) -> tuple[FileRecord, ...]:
    """Read a list of file records; raises Corrupt where a path is hostile or sizes do not add up."""
    files = tuple(read_file(record, name) for record in records)
    clash = collision(file.path for file in files)
    if clash is not None:
        raise Corrupt(f"{name} lists {clash!r} twice, or as file and folder", path=clash)
    return files


def read_file(record: Mapping[str, Any], name: str) -> FileRecord:
    """Read one file record; raises Corrupt where its path is hostile or its sizes do not add up."""
    path = _text(record, "path")
    problem = path_problem(path)
    if problem is not None:
        raise Corrupt(f"{name} lists the path {path!r}, which {problem}; it was not written by modelrepo", path=path)
    chunks = tuple(ChunkRecord(_digest(chunk["sha256"]), _size(chunk["size_bytes"])) for chunk in record["chunks"])
    size = _size(record["size_bytes"])
    if sum(chunk.size_bytes for chunk in chunks) != size:
        raise Corrupt(f"{name}: the chunks of {path!r} do not add up to its {size} bytes", path=path)
    if any(chunk.size_bytes == 0 for chunk in chunks):
        raise Corrupt(f"{name}: {path!r} has an empty chunk", path=path)
    digest = _digest(record["sha256"])
    if len(chunks) == 1 and chunks[0].sha256 != digest:
        raise Corrupt(f"{name}: {path!r} has not the digest of its one chunk", path=path)
    mode = EXECUTABLE if int(record["mode"], 8) & 0o100 else PLAIN
    return FileRecord(path, mode, size, digest, chunks)


def _read_checkpoint(record: Mapping[str, Any], name: str) -> CheckpointRecord:
    files = read_files(record["files"], name)
    single = bool(record.get("single", False))
    if single and (len(files) != 1 or "/" in files[0].path):
        raise Corrupt(f"{name} is said to be one file, but lists {len(files)} or a folder", path=name)
    source = record.get("source")
    return CheckpointRecord(files, single, None if source is None else dict(source))


def _environment(record: Mapping[str, Any], name: str) -> EnvironmentRecord:
    environment = EnvironmentRecord.from_json(record)
    for digest in (environment.digest, *(wheel.sha256 for wheel in environment.carried)):
        _digest(digest)  # they become parts of keys and paths
    for wheel in environment.carried:
        if (problem := name_problem(wheel.filename)) is not None:  # and so does this
            raise Corrupt(f"{name} carries a wheel named {wheel.filename!r}, which {problem}", path=wheel.filename)
    return environment


def _checkpoint_name(label: str, name: str) -> str:
    problem = name_problem(label)
    if problem is not None:
        raise Corrupt(f"{name} has a checkpoint named {label!r}, which {problem}", path=label)
    return label


def _text(tree: Mapping[str, Any], key: str) -> str:
    value = tree[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is not a text")
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise TypeError(f"{value!r} is not a size")
    return value


def _digest(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value):
        return value
    raise TypeError(f"{value!r} is not a sha256 digest")


def _problem(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) and error.args else str(error)
