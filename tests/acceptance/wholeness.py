"""What must hold in a repository at every moment, whatever went wrong: asked of all of it, byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

from modelrepo import Repository, layout
from modelrepo.canonical import sha256


@dataclass(frozen=True, slots=True)
class Whole:
    """What is visible in the model `tiny`, all of it whole."""

    versions: tuple[str, ...]
    deleted: tuple[str, ...]
    active: str | None
    generations: int


def check_repository(repository: Repository, model: str = "tiny") -> Whole:
    """Every version that is visible can be read to its last byte, the history has no gap, what is active is there."""
    if model not in repository.models():
        return Whole((), (), None, 0)
    summaries = repository.versions(model)
    there = tuple(one.version for one in summaries if not one.deleted)
    for version in there:
        for digest, size_bytes in repository.resolve(f"{model}@{version}").manifest.objects().items():
            data = repository.store.read(layout.object_(digest))
            assert (len(data), sha256(data)) == (size_bytes, digest), f"{model}@{version} is torn"
    entries = repository.promotions.history(model)
    assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1))
    assert len({entry.change for entry in entries}) == len(entries)
    state = repository.promotions.state(model)
    assert state.version is None or state.version in there
    deleted = tuple(one.version for one in summaries if one.deleted)
    return Whole(there, deleted, state.version, len(entries))
