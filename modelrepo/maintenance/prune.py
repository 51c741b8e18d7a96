"""Free what nothing names any more: does whatever is due of docs/format.md, "Prune"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo.clock import Clock
from modelrepo.errors import InvalidInput
from modelrepo.maintenance.marking import Kept, Mark, Marker, old_enough
from modelrepo.maintenance.pending import PendingPrune, PruneState, pending_prunes
from modelrepo.maintenance.references import read_references
from modelrepo.maintenance.store_time import store_now
from modelrepo.maintenance.sweeping import Sweep, over, rehearse, sweep, write_done
from modelrepo.maintenance.tidying import Tidied, tidy
from modelrepo.publication.leases import GRACE_S
from modelrepo.stores.port import ObjectStore

SHORTEST_GRACE_S = 3600.0
"""Far above what a listing may be behind, which is what a push relies on when it looks for prunes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mark that is not due yet, or a sweep of another's under way; `due_in_s` from now."""

    id: str
    objects: int
    environments: int
    size_bytes: int
    due_in_s: float
    sweeping: bool = False


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did, or would do.

    `swept`: the marks that were due. `marked`: what may be swept from `grace_s` on. `abandoned`: sweeps that died.
    `versions`, `bundles`: how many were read to see what is needed.
    """

    grace_s: float
    dry_run: bool
    swept: Sequence[Sweep]
    marked: Sequence[Mark]
    waiting: Sequence[Waiting]
    abandoned: Sequence[str]
    kept: Kept
    tidied: Tidied
    versions: int
    bundles: int

    @property
    def freed_bytes(self) -> int:
        return sum(each.freed_bytes for each in self.swept)

    @property
    def marked_bytes(self) -> int:
        return sum(each.size_bytes for each in self.marked)


def prune(
    store: ObjectStore, *, grace_s: float = GRACE_S, dry_run: bool = False, by: str = "", clock: Clock | None = None
) -> PruneReport:
    """Sweep the marks that are due, tidy up, and mark what nothing names and is older than the grace.

    Killed anywhere it is gone on with when it is run again; any number may run at once. `dry_run` deletes and marks
    nothing, but asks the store for its time by an object that it creates and deletes.

    Raises:
        InvalidInput: the grace is below an hour.
        Corrupt, NewerFormat: something that may name objects cannot be read; nothing was deleted on its account.
    """
    if grace_s < SHORTEST_GRACE_S:
        raise InvalidInput(f"grace of {grace_s:.0f} s is too short: a push under way needs an hour at least")
    return _Prune(store, grace_s, dry_run, by, clock or Clock()).run()


@dataclass(frozen=True, slots=True)
class _Prune:
    store: ObjectStore
    grace_s: float
    dry_run: bool
    by: str
    clock: Clock

    def run(self) -> PruneReport:
        now = store_now(self.store)
        prunes = pending_prunes(self.store)
        abandoned = [prune.id for prune in prunes if prune.state is PruneState.SWEEPING and over(prune, now)]
        due = [prune for prune in prunes if prune.state is PruneState.MARKED and self._due_in(prune, now) <= 0]
        if not self.dry_run:
            for prune_id in abandoned:
                write_done(self.store, prune_id, self.clock)
            if due:
                read_references(self.store, now=now)  # what cannot be read is better found before the decision
        swept = [self._sweep(prune, now) for prune in due]
        tidied = tidy(self.store, prunes, now=now, grace_s=self.grace_s, dry_run=self.dry_run)
        over_now = {*abandoned, *(each.id for each in swept if each.ending != "another's" and not self.dry_run)}
        under_way = [prune for prune in prunes if prune.state in (PruneState.MARKED, PruneState.SWEEPING)]
        waiting, before = self._read([prune for prune in under_way if prune.id not in over_now], now)
        references = read_references(self.store, now=now, dooms=old_enough(now, self.grace_s, before))
        marker = Marker(self.store, references, now, self.grace_s, before, self.clock, self.by, self.dry_run)
        marked, kept = marker.mark()
        return PruneReport(
            grace_s=self.grace_s,
            dry_run=self.dry_run,
            swept=swept,
            marked=marked,
            waiting=waiting,
            abandoned=abandoned,
            kept=kept,
            tidied=tidied,
            versions=references.manifests,
            bundles=references.bundles,
        )

    def _due_in(self, prune: PendingPrune, now: float) -> float:
        return prune.marked_at + self.grace_s - now

    def _sweep(self, prune: PendingPrune, now: float) -> Sweep:
        if self.dry_run:
            return rehearse(self.store, prune, now=now)
        return sweep(self.store, prune, clock=self.clock)

    def _read(self, prunes: Sequence[PendingPrune], now: float) -> tuple[list[Waiting], set[bytes]]:
        waiting: list[Waiting] = []
        digests: set[bytes] = set()
        for prune in prunes:
            condemned = prune.condemned(self.store)
            if condemned is None:
                continue
            digests.update(map(bytes.fromhex, (*condemned.objects, *condemned.environments)))
            if self._due_in(prune, now) <= 0 and prune.state is PruneState.MARKED:
                continue
            sweeping = prune.state is PruneState.SWEEPING
            due_in_s = 0.0 if sweeping else max(0.0, self._due_in(prune, now))
            named = (len(condemned.objects), len(condemned.environments), condemned.size_bytes)
            waiting.append(Waiting(prune.id, *named, due_in_s, sweeping))
        return waiting, digests
