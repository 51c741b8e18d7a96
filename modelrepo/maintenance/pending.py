"""The prunes of a repository, and where each stands: what `prunes/` holds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelrepo import canonical, layout
from modelrepo.errors import Corrupt, ObjectNotFound
from modelrepo.formats import FORMAT, check_format
from modelrepo.publication.leases import CANCEL, decision
from modelrepo.stores.port import ObjectStat, ObjectStore


class PruneState(StrEnum):
    """Where a prune stands. `tidied`: nothing of it is left."""

    MARKED = "marked"
    SWEEPING = "sweeping"
    CANCELLED = "cancelled"
    DONE = "done"
    TIDIED = "tidied"


TRANSITIONS: Mapping[PruneState, frozenset[PruneState]] = {
    PruneState.MARKED: frozenset({PruneState.SWEEPING, PruneState.CANCELLED}),
    PruneState.SWEEPING: frozenset({PruneState.DONE}),
    PruneState.CANCELLED: frozenset({PruneState.TIDIED}),
    PruneState.DONE: frozenset({PruneState.TIDIED}),
    PruneState.TIDIED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Condemned:
    """What a mark names: objects with their sizes, and environments whose bundles are to go, with theirs."""

    objects: Mapping[str, int]
    environments: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.objects.values()) + sum(self.environments.values())

    def to_bytes(self, prune_id: str, *, at: str, by: str) -> bytes:
        """Return the document `prunes/<id>.json`."""
        named = {**self.objects, **self.environments}
        record: canonical.Json = {
            "format": FORMAT,
            "id": prune_id,
            "at": at,
            "by": by,
            "digests": [f"sha256:{digest}" for digest in named],
            "sizes": list(named.values()),
            "environments": list(self.environments),
        }
        return canonical.dumps(record)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Condemned:
        """Read the document; raises Corrupt, NewerFormat."""
        try:
            record: Mapping[str, Any] = json.loads(data)
            check_format(record, name)
            digests = [str(digest).removeprefix("sha256:") for digest in record["digests"]]
            for digest in digests:
                if len(bytes.fromhex(digest)) != 32:
                    raise ValueError(f"{digest!r} is no digest")
            sizes = list(record.get("sizes") or ())
            if any(not isinstance(size, int) for size in sizes):
                raise TypeError("one of the sizes is no number of bytes")
            known = dict(zip(digests, sizes, strict=True)) if sizes else dict.fromkeys(digests, 0)
            environments = {digest: known[digest] for digest in record.get("environments") or ()}
            return cls({digest: known[digest] for digest in digests if digest not in environments}, environments)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Corrupt(f"{name} is no prune record ({error}); remove it and run it again", path=name) from error


@dataclass(frozen=True, slots=True)
class PendingPrune:
    """One prune, as a listing shows it; its files are those that are there. `since`: of the newest of them."""

    id: str
    state: PruneState
    marked_at: float
    decided_at: float
    since: float

    def condemned(self, store: ObjectStore) -> Condemned | None:
        """Read what it condemns, None where the record is tidied away."""
        key = layout.prune(self.id)
        try:
            return Condemned.from_bytes(store.read(key), key)
        except ObjectNotFound:
            return None


def pending_prunes(store: ObjectStore) -> list[PendingPrune]:
    """Return every prune that has left something in `prunes/`, oldest mark first."""
    files: defaultdict[str, dict[str, ObjectStat]] = defaultdict(dict)
    for stat in store.list(layout.PRUNES):
        prune_id, _, kind = stat.key.removeprefix(layout.PRUNES).rpartition(".")
        if kind in ("json", "decision", "done"):
            files[prune_id][kind] = stat
    found = [_stand(store, prune_id, of_prune) for prune_id, of_prune in files.items()]
    return sorted(found, key=lambda prune: (prune.marked_at, prune.id))


def remains(prune_id: str) -> Sequence[str]:
    """Return the keys of a prune, in the order in which they may be deleted: a record never outlives its decision."""
    return layout.prune(prune_id), layout.prune_decision(prune_id), layout.prune_done(prune_id)


def _stand(store: ObjectStore, prune_id: str, files: Mapping[str, ObjectStat]) -> PendingPrune:
    if "done" in files or "json" not in files:
        state = PruneState.DONE
    elif "decision" not in files:
        state = PruneState.MARKED
    else:
        state = PruneState.CANCELLED if decision(store, prune_id) == CANCEL else PruneState.SWEEPING
    times = {kind: stat.modified for kind, stat in files.items()}
    since = max(times.values())
    return PendingPrune(prune_id, state, times.get("json", since), times.get("decision", since), since)
