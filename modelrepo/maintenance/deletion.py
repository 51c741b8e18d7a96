"""What deleting a version would free, once prune has come by."""

from __future__ import annotations

from dataclasses import dataclass

from modelrepo import layout
from modelrepo.errors import Corrupt, NewerFormat
from modelrepo.maintenance.references import read_references
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import read_bundle
from modelrepo.versions.manifest import Manifest


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """`objects` and their `freed_bytes` are needed by nothing else, `bundles` are of an environment of its own."""

    model: str
    version: str
    objects: int
    freed_bytes: int
    bundles: int


def plan_deletion(store: ObjectStore, model: str, version: str) -> DeletionPlan:
    """Say what only this version needs; pushes under way are left out of it.

    Raises:
        Corrupt, NewerFormat: something cannot be read, so nobody can say.
    """
    key = layout.manifest(model, version)
    manifest = Manifest.from_bytes(store.read(key), name=key)
    others = read_references(store, now=float("inf"), dooms=lambda *_: True, without=key)
    sizes = manifest.objects()
    bundles = others.doomed.get(manifest.environment.digest, [])
    for stat in bundles:
        try:
            records = read_bundle(stat.key, store.read(stat.key))
        except (Corrupt, NewerFormat):
            continue  # it goes all the same
        sizes |= {chunk.sha256: chunk.size_bytes for record in records for chunk in record.chunks}
    freed = {digest: size_bytes for digest, size_bytes in sizes.items() if not others.names(digest)}
    return DeletionPlan(model, version, len(freed), sum(freed.values()), len(bundles))
