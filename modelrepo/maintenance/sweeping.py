"""Sweep what was marked: docs/format.md, "Prune". From the decision on there are ten minutes, and pushes wait."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.errors import ModelRepoError, ObjectExists, Unreachable
from modelrepo.maintenance.pending import Condemned, PendingPrune
from modelrepo.maintenance.references import References, read_references
from modelrepo.maintenance.store_time import Stopwatch
from modelrepo.publication.delivery import asked_again
from modelrepo.publication.leases import CANCEL, REQUEST_TIMEOUT_S, SWEEP, SWEEP_LIMIT_S, decision
from modelrepo.stores.port import ObjectStat, ObjectStore
from modelrepo.window import Window

DONE = b"done"
THREADS = 16  # deletes are small requests that wait for the store

Ending = Literal["swept", "cancelled", "another's", "gone"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What became of one mark.

    `cancelled`: a push wants some of it. `another's`: another prune sweeps it, or has begun to. `gone`: another has
    tidied it away. `kept`: objects and environments that are needed again. `left`: those that the time was too short
    for, which are marked anew.
    """

    id: str
    ending: Ending
    deleted: int = 0
    freed_bytes: int = 0
    kept: int = 0
    left: int = 0


def over(prune: PendingPrune, now: float) -> bool:
    """Say whether a sweep that was begun has surely stopped, though nobody wrote so."""
    return now - prune.decided_at > SWEEP_LIMIT_S + 2 * REQUEST_TIMEOUT_S


def write_done(store: ObjectStore, prune_id: str, clock: Clock) -> None:
    """Say that a sweep is over, so that no push waits for it."""
    asked_again(lambda: store.create(layout.prune_done(prune_id), DONE), clock)


def sweep(store: ObjectStore, prune: PendingPrune, *, clock: Clock) -> Sweep:
    """Decide to sweep, read again what is needed, and delete the rest of what was marked.

    Raises:
        Corrupt, NewerFormat: something cannot be read, so nothing was deleted.
        Unreachable: a later prune says that this one is over, and marks anew what it left.
    """
    watch = Stopwatch.start(clock)
    if (lost := _decide(store, prune, clock)) is not None:
        return lost
    condemned = prune.condemned(store)
    if condemned is None:
        # Tidied away between listing and decision: no push can see it, so none would wait for this sweep.
        store.delete(layout.prune_decision(prune.id))
        return Sweep(prune.id, "gone")
    try:
        now = store.stat(layout.prune_decision(prune.id)).modified
        references = read_references(store, now=now, dooms=lambda digest, _: digest in condemned.environments)
    except ModelRepoError:
        with suppress(Unreachable):  # else the next prune finds it
            write_done(store, prune.id, clock)
        raise
    done = _Deleting(store, watch, condemned, references).run()
    write_done(store, prune.id, clock)
    return Sweep(prune.id, "swept", done.deleted, done.freed_bytes, done.kept, done.left)


def _decide(store: ObjectStore, prune: PendingPrune, clock: Clock) -> Sweep | None:
    """Win the decision, or say what became of the prune."""
    # The same bytes count as created: were they the same for every sweeper, two would believe that they had won.
    ours = SWEEP + b" " + secrets.token_hex(8).encode()
    try:
        asked_again(lambda: store.create(layout.prune_decision(prune.id), ours), clock)
    except ObjectExists:
        found = decision(store, prune.id)
        return Sweep(prune.id, "cancelled" if found == CANCEL else "another's" if found else "gone")
    return None


def rehearse(store: ObjectStore, prune: PendingPrune, *, now: float) -> Sweep:
    """Say what a sweep would do now."""
    condemned = prune.condemned(store)
    if condemned is None:
        return Sweep(prune.id, "gone")
    references = read_references(store, now=now, dooms=lambda digest, _: digest in condemned.environments)
    bundles = {stat.key: stat.size_bytes for each in references.doomed.values() for stat in each}
    objects = _unneeded(condemned, references)
    kept = len(condemned.environments) - len(references.doomed) + len(condemned.objects) - len(objects)
    freed_bytes = sum(objects.values()) + sum(bundles.values())
    return Sweep(prune.id, "swept", len(objects) + len(bundles), freed_bytes, kept)


def _unneeded(condemned: Condemned, references: References) -> dict[str, int]:
    return {
        digest: size_bytes
        for digest, size_bytes in condemned.objects.items()
        if not references.names(digest) and not references.leases(digest)
    }


class _Deleting:
    """One sweep's deletes: first the bundles, so that no bundle ever names what is gone, then the objects."""

    def __init__(self, store: ObjectStore, watch: Stopwatch, condemned: Condemned, references: References) -> None:
        self._store, self._watch = store, watch
        self._condemned, self._references = condemned, references
        self._guard = threading.Lock()
        self.deleted = self.freed_bytes = self.kept = self.left = 0

    def run(self) -> _Deleting:
        with Window(threads=THREADS) as window:
            for environment in self._condemned.environments:
                bundles: list[ObjectStat] = self._references.doomed.get(environment, [])
                self.kept += not bundles
                for stat in bundles:
                    window.submit(0, self._delete, stat.key, stat.size_bytes)
        if self.left:
            self.left += len(self._condemned.objects)
            return self
        with Window(threads=THREADS) as window:
            for digest, size_bytes in self._unneeded().items():
                window.submit(0, self._delete, layout.object_(digest), size_bytes)
        return self

    def _unneeded(self) -> Mapping[str, int]:
        found = _unneeded(self._condemned, self._references)
        self.kept += len(self._condemned.objects) - len(found)
        return found

    def _delete(self, key: str, size_bytes: int) -> None:
        in_time = self._watch.seconds < SWEEP_LIMIT_S
        if in_time:
            self._store.delete(key)
        with self._guard:
            if in_time:
                self.deleted += 1
                self.freed_bytes += size_bytes
            else:
                self.left += 1
