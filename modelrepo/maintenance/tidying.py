"""Take away what the protocols leave behind: prunes that are over, expired leases, half-written files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelrepo import layout
from modelrepo.maintenance.pending import PendingPrune, PruneState, remains
from modelrepo.maintenance.references import expired, lease_families
from modelrepo.publication.leases import GRACE_S
from modelrepo.stores.port import ObjectStat, ObjectStore


@runtime_checkable
class KeepsTemporaries(Protocol):
    """A store whose writers leave temporary files behind when they die."""

    def temporaries(self) -> Iterator[ObjectStat]:
        """Yield them; `list` never does."""
        ...


@dataclass(frozen=True, slots=True)
class Tidied:
    """How much was taken away, or would be: prunes that are over, files of leases, temporary files and their bytes."""

    prunes: int
    leases: int
    temporaries: int
    temporary_bytes: int


def tidy(
    store: ObjectStore, prunes: list[PendingPrune], *, now: float, grace_s: float, dry_run: bool = False
) -> Tidied:
    """Take it away. `now`: the store's own time. What a slow push may still look at stays for a grace."""
    old = max(grace_s, GRACE_S)
    delete: Callable[[str], object] = (lambda _: None) if dry_run else store.delete
    finished = [
        prune for prune in prunes if prune.state in (PruneState.DONE, PruneState.CANCELLED) and now - prune.since >= old
    ]
    for prune in finished:
        for key in remains(prune.id):
            delete(key)
    leases = [stat for family in lease_families(store).values() if expired(family, now) for stat in family]
    for stat in leases:
        delete(stat.key)
    for stat in store.list(layout.PROBES):
        if now - stat.modified >= old:
            delete(stat.key)
    halves = [stat for stat in _temporaries(store) if now - stat.modified >= old]
    for stat in halves:
        delete(stat.key)
    return Tidied(len(finished), len(leases), len(halves), sum(stat.size_bytes for stat in halves))


def _temporaries(store: ObjectStore) -> Iterator[ObjectStat]:
    return store.temporaries() if isinstance(store, KeepsTemporaries) else iter(())
