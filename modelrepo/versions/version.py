"""A published version, as every part of modelrepo passes it around."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.contract.spec import ModelSpec
from modelrepo.errors import InvalidInput
from modelrepo.holds import Hold
from modelrepo.names import near_names
from modelrepo.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Version:
    """A version and its manifest. `digest` is the sha256 of the manifest's bytes, 64 hex digits."""

    model: str
    version: str
    digest: str
    manifest: Manifest
    spec: ModelSpec

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    def checkpoint_names(self, wanted: Collection[str] | None) -> frozenset[str]:
        """Return the names of the wanted checkpoints, None for all; raises InvalidInput for one that it lacks."""
        known = self.manifest.checkpoints
        if wanted is None:
            return frozenset(known)
        for name in wanted:
            if name not in known:
                near = near_names(name, known)
                meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
                raise InvalidInput(f"{self} has no checkpoint {name!r}; {meant}")
        return frozenset(wanted)

    def checkpoint_path(self, folder: Path, name: str) -> Path:
        """Return the file or folder, below a version's `folder`, that a model sees as a checkpoint."""
        record = self.manifest.checkpoints[name]
        path = folder / "checkpoints" / name
        return path / record.files[0].path if record.single else path


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A line of `modelrepo list`. `problem`: why its manifest cannot be read; what would be in it is empty then."""

    model: str
    version: str
    digest: str = ""
    created_at: str = ""
    author: str | None = None
    message: str | None = None
    git_commit: str | None = None
    git_dirty: bool = False
    size_bytes: int = 0
    active: bool = False
    previous: bool = False
    blocked: bool = False
    deleted: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """A version whose bytes are on this box: read-only, verified, complete for the checkpoints that are listed."""

    version: Version
    folder: Path
    code: Path
    checkpoints: Mapping[str, Path]
    holds: tuple[Hold, ...] = field(default=(), compare=False, repr=False)
    """What keeps it and its environment from being evicted, until `let_go` or until nothing refers to it any more."""

    def let_go(self) -> None:
        """Say that it is used no more; twice is legal."""
        for hold in self.holds:
            hold.release()
