"""Prune, verify and repair on a real S3 server, by its own Last-Modified."""

from __future__ import annotations

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.maintenance.prune import PruneReport, _Prune
from modelrepo.repository import Repository
from tests.conftest import Bucket
from tests.unit.maintenance.stocked import objects, put


def prune_at_once(repository: Repository) -> PruneReport:
    """Prune with no grace at all, which nobody else may ask for, and with no push under way."""
    for stat in list(repository.store.list(layout.PUSHES)):
        repository.store.delete(stat.key)
    return _Prune(repository.store, 0.0, dry_run=False, by="tests", clock=Clock()).run()


def test_what_was_deleted_goes_and_nothing_else(seaweed: Bucket) -> None:
    repository = Repository.init(f"{seaweed.url}/models")
    put(repository.store, b"shared", b"only in v1", wheels=(b"torch",), environment=b"old")
    put(repository.store, b"shared", b"only in v2", wheels=(b"numpy",), environment=b"new")
    assert not prune_at_once(repository).marked
    repository.delete("m", "v1")
    (mark,) = prune_at_once(repository).marked
    assert (mark.objects, mark.environments) == (2, 1)
    (swept,) = prune_at_once(repository).swept
    assert (swept.ending, swept.deleted) == ("swept", 3)
    assert objects(repository.store) == {b"shared", b"only in v2", b"numpy"}
    assert not repository.verify().wrong
    assert not list(repository.store.list(layout.PROBES))


def test_damage_in_a_bucket_is_found_and_mended_from_another(seaweed: Bucket) -> None:
    repository, backup = (Repository.init(f"{seaweed.url}/{name}") for name in ("models", "backup"))
    put(repository.store, b"one" * 1000, b"two", wheels=(b"wheel",))
    repository.promotions.promote("m", "v1")
    repository.copy_to(backup)
    repository.store.replace(layout.object_(sha256(b"one" * 1000)), b"one" * 999 + b"two")
    repository.store.replace(layout.object_(sha256(b"two")), b"tw")
    repository.store.delete(layout.object_(sha256(b"wheel")))
    assert {problem.fault for problem in repository.verify().wrong} == {"corrupt", "truncated", "missing"}
    assert len(repository.verify(quick=True).wrong) == 2
    assert not repository.verify(repair_from=f"{seaweed.url}/backup").wrong
    assert not repository.verify("m").problems
    assert objects(repository.store) == {b"one" * 1000, b"two", b"wheel"}
