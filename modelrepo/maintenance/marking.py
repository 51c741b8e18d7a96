"""Mark what nothing needs: docs/format.md, "Prune"."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.maintenance.pending import Condemned
from modelrepo.maintenance.references import References
from modelrepo.publication.delivery import asked_again
from modelrepo.stores.port import ObjectStore

MOST_IN_A_RECORD = 50_000
"""Digests; every push reads every record, and one sweep has ten minutes for its own."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One record that was created, or would be; `environments`: whose bundles it condemns."""

    id: str
    objects: int
    environments: int
    size_bytes: int


@dataclass(slots=True)
class Kept:
    """Why objects were left alone, counted: a version or bundle names them, a push wants them, too young, marked."""

    needed: int = 0
    leased: int = 0
    young: int = 0
    marked_before: int = 0
    needed_bytes: int = 0
    young_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks in one store, by what was read from it. `now`: the store's own time."""

    store: ObjectStore
    references: References
    now: float
    grace_s: float
    before: set[bytes]
    clock: Clock
    by: str
    dry_run: bool = False

    def mark(self) -> tuple[list[Mark], Kept]:
        """Create a record of what is to go, or several."""
        kept = Kept()
        environments = {
            environment: sum(stat.size_bytes for stat in bundles)
            for environment, bundles in self.references.doomed.items()
        }
        marks: list[Mark] = []
        objects: dict[str, int] = {}
        for digest, size_bytes in self._garbage(kept):
            objects[digest] = size_bytes
            if len(objects) == MOST_IN_A_RECORD:
                marks.append(self._record(Condemned(objects, environments)))
                objects, environments = {}, {}
        if objects or environments:
            marks.append(self._record(Condemned(objects, environments)))
        return marks, kept

    def _garbage(self, kept: Kept) -> Iterator[tuple[str, int]]:
        for stat in self.store.list(layout.OBJECTS):
            digest = layout.digest_of(stat.key)
            if digest is None:
                continue
            if self.references.names(digest):
                kept.needed += 1
                kept.needed_bytes += stat.size_bytes
            elif self.references.leases(digest):
                kept.leased += 1
            elif self.now - stat.modified < self.grace_s:
                kept.young += 1
                kept.young_bytes += stat.size_bytes
            elif bytes.fromhex(digest) in self.before:
                kept.marked_before += 1
            else:
                yield digest, stat.size_bytes

    def _record(self, condemned: Condemned) -> Mark:
        prune_id = secrets.token_hex(8)
        if not self.dry_run:
            data = condemned.to_bytes(prune_id, at=self.clock.timestamp(), by=self.by)
            asked_again(lambda: self.store.create(layout.prune(prune_id), data), self.clock)
        return Mark(prune_id, len(condemned.objects), len(condemned.environments), condemned.size_bytes)


def old_enough(now: float, grace_s: float, before: set[bytes]) -> Callable[[str, float], bool]:
    """Return what says that an environment's bundles are to be marked: all are older than the grace, none is marked."""
    return lambda environment, modified: now - modified >= grace_s and bytes.fromhex(environment) not in before
