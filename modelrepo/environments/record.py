"""What a manifest says about a version's environment: enough to build it on a box that has never seen the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_EXTRA = "_"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One pinned distribution. Without `hashes` it comes from a carried wheel and from nowhere else."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    marker: str | None = None

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class CarriedWheel:
    """A wheel that travels with the version, since no index has it; `sha256` is 64 hex digits."""

    filename: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """A path, editable or workspace member; `sha256` is that of its source, which changes without the lock."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class EnvironmentRecord:
    """One lock, for every platform that it covers. `requirements` has a list for each extra, `_` for none."""

    python: str
    requires_python: str
    digest: str
    pyproject_sha256: str
    extras: tuple[str, ...] = ()
    requirements: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)
    carried: tuple[CarriedWheel, ...] = ()
    members: tuple[Member, ...] = ()

    def for_extra(self, extra: str | None) -> tuple[Requirement, ...]:
        """Raises: KeyError."""
        return self.requirements[extra or NO_EXTRA]

    def pins(self) -> dict[str, str]:
        """Return name and versions of everything that any extra installs; forks of a lock have several."""
        found: dict[str, set[str]] = {}
        for requirements in self.requirements.values():
            for requirement in requirements:
                found.setdefault(requirement.name, set()).add(requirement.version)
        return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}

    def to_json(self) -> dict[str, Any]:
        return {
            "python": self.python,
            "requires_python": self.requires_python,
            "digest": self.digest,
            "pyproject_sha256": self.pyproject_sha256,
            "extras": list(self.extras),
            "requirements": {
                extra: [_requirement_json(requirement) for requirement in requirements]
                for extra, requirements in self.requirements.items()
            },
            "carried": [wheel_json(wheel) for wheel in self.carried],
            "members": [
                {"name": member.name, "version": member.version, "sha256": member.sha256} for member in self.members
            ],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EnvironmentRecord:
        """Raises: KeyError, TypeError."""
        return cls(
            python=raw["python"],
            requires_python=raw["requires_python"],
            digest=raw["digest"],
            pyproject_sha256=raw["pyproject_sha256"],
            extras=tuple(raw["extras"]),
            requirements={
                extra: tuple(
                    Requirement(one["name"], one["version"], tuple(one["hashes"]), one.get("marker"))
                    for one in requirements
                )
                for extra, requirements in raw["requirements"].items()
            },
            carried=tuple(wheel_from_json(wheel) for wheel in raw["carried"]),
            members=tuple(Member(one["name"], one["version"], one["sha256"]) for one in raw["members"]),
        )


def wheel_json(wheel: CarriedWheel) -> dict[str, Any]:
    return {"filename": wheel.filename, "sha256": wheel.sha256, "size_bytes": wheel.size_bytes}


def wheel_from_json(raw: Mapping[str, Any]) -> CarriedWheel:
    return CarriedWheel(raw["filename"], raw["sha256"], raw["size_bytes"])


def _requirement_json(requirement: Requirement) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "name": requirement.name,
        "version": requirement.version,
        "hashes": list(requirement.hashes),
    }
    return raw if requirement.marker is None else {**raw, "marker": requirement.marker}
