"""A published version, as every part of modelrepo passes it around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.contract.spec import ModelSpec
from modelrepo.holds import Hold
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
