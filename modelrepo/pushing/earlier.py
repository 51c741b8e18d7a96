"""Checkpoints that are taken from an earlier version rather than read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelrepo.contract import spec_from_json
from modelrepo.contract.spec import CheckpointSource, ModelSpec
from modelrepo.errors import InvalidCheckpoint
from modelrepo.versions.manifest import CheckpointRecord, Manifest

Earlier = Callable[[], Sequence[Manifest]]
"""Finds the versions of a model whose checkpoints may be known already; asked only where a source is remote."""


def reuse_checkpoints(spec: ModelSpec, manifest: Manifest) -> dict[str, CheckpointRecord]:
    """Take every checkpoint that `spec` names from a version, whatever lies on this box.

    Raises:
        InvalidCheckpoint: the version has it not, or from another source or by other patterns.
    """
    theirs = spec_from_json(manifest.spec).checkpoints
    return {name: _taken(name, source, theirs.get(name), manifest) for name, source in spec.checkpoints.items()}


def _taken(name: str, ours: CheckpointSource, theirs: CheckpointSource | None, manifest: Manifest) -> CheckpointRecord:
    version, remedy = (
        f"{manifest.model}@{manifest.version}",
        "push without --reuse-checkpoints, or name another version",
    )
    if theirs is None or name not in manifest.checkpoints:
        known = ", ".join(sorted(manifest.checkpoints)) or "none"
        raise InvalidCheckpoint(f"checkpoint {name!r} cannot be reused: {version} has {known}; {remedy}")
    for what in ("source", "include", "exclude"):
        mine, other = getattr(ours, what), getattr(theirs, what)
        if mine != other:
            raise InvalidCheckpoint(
                f"checkpoint {name!r} cannot be reused: its {what} is {_shown(mine)} here and {_shown(other)} in "
                f"{version}; {remedy}"
            )
    return manifest.checkpoints[name]


def _shown(value: str | Sequence[str]) -> str:
    return repr(value) if isinstance(value, str) else repr(list(value))
