"""A VersionIndex without a repository: for tests of promotion and of what watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelrepo.canonical import sha256
from modelrepo.errors import ModelNotFound, VersionNotFound


@dataclass(slots=True)
class VersionTable:
    """Versions by model; a version's digest is made up from its name."""

    models: dict[str, list[str]] = field(default_factory=dict)
    deleted: set[tuple[str, str]] = field(default_factory=set)

    def digest(self, model: str, version: str) -> str:
        if model not in self.models:
            raise ModelNotFound(f"no model {model}")
        if version not in self.models[model]:
            raise VersionNotFound(f"no version {model}@{version}")
        return sha256(f"{model}@{version}".encode())

    def versions(self, model: str) -> Sequence[str]:
        return [each for each in self.models.get(model, ()) if (model, each) not in self.deleted]

    def is_deleted(self, model: str, version: str) -> bool:
        return (model, version) in self.deleted
