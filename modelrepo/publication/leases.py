"""A push's side of the protocol with prune: docs/format.md, "Publication" and "Prune"."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelrepo import canonical, layout
from modelrepo.clock import Clock
from modelrepo.errors import Corrupt, ObjectExists, ObjectNotFound
from modelrepo.formats import FORMAT, check_format
from modelrepo.stores.port import ObjectStore

GRACE_S = 24 * 3600.0
SWEEP_LIMIT_S = 600.0  # a sweeper stops by itself this long after its decision
REQUEST_TIMEOUT_S = 120.0  # the last delete that a sweeper sent may still be on its way, asked for again included
SWEEP_POLL_S = 2.0
SWEEP, CANCEL = b"sweep", b"cancel"  # the first word of a decision; after it may stand whose it is
_PREFIX = "sha256:"
_DIGEST = re.compile("[0-9a-f]{64}")


class PushLease:
    """Keeps prune from the objects that a push counts on. It is never deleted by the push: prune does that.

    `lapsed`: it was not renewed in time (the box slept, say), so what was looked at since `take` may be gone.
    """

    def __init__(self, store: ObjectStore, *, model: str, by: str, digests: Collection[str] = (), clock: Clock) -> None:
        self.id = secrets.token_hex(8)
        self._store, self._clock = store, clock
        self._model, self._by = model, by
        self._digests = set(digests)
        self._files = 0
        self._written_at = (0.0, 0.0)  # when a file was last written for all of the digests that there were
        self.lapsed = False

    @property
    def taken(self) -> bool:
        return self._files > 0

    def take(self) -> None:
        """Create the lease, or the next file beside it, for every digest; durable on return."""
        self._written_at = (self._clock.monotonic(), self._clock.now())
        self._write(self._digests)
        self.lapsed = False

    def take_more(self, digests: Collection[str]) -> None:
        """Hold further digests too, in a file of their own; durable on return."""
        self._digests.update(digests)
        if self._files:
            self._write(digests)
        else:
            self.take()

    def renew_if_due(self) -> None:
        """Create the next lease file once half a grace has gone by."""
        # A monotonic clock stands still while the box sleeps, and a wall clock may be set back: whichever says more.
        age_s = max(self._clock.monotonic() - self._written_at[0], self._clock.now() - self._written_at[1])
        if age_s > GRACE_S / 2:
            lapsed = self.lapsed or age_s > GRACE_S
            self.take()
            self.lapsed = lapsed

    def _write(self, digests: Collection[str]) -> None:
        record: dict[str, canonical.Json] = {
            "format": FORMAT,
            "id": self.id,
            "model": self._model,
            "at": self._clock.timestamp(),
            "by": self._by,
            "digests": [_PREFIX + digest for digest in sorted(digests)],
        }
        self._store.create(layout.push_lease(self.id, self._files), canonical.dumps(record))
        self._files += 1


@dataclass(slots=True)
class PendingPrunes:
    """The prunes under way, as one writer sees them; each is read, called off or waited for once."""

    store: ObjectStore
    clock: Clock
    _condemned: dict[str, frozenset[str]] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)

    def look(self) -> Mapping[str, frozenset[str]]:
        """List `prunes/`; return the objects and environments that those condemn which are neither done nor off."""
        keys = {stat.key for stat in self.store.list(layout.PRUNES)}
        pending: dict[str, frozenset[str]] = {}
        for key in keys:
            prune_id = key.removeprefix(layout.PRUNES).removesuffix(".json")
            if not key.endswith(".json") or prune_id in self._over:
                continue
            called_off = layout.prune_decision(prune_id) in keys and decision(self.store, prune_id) == CANCEL
            if called_off or layout.prune_done(prune_id) in keys:
                self._close(prune_id)
                continue
            if prune_id not in self._condemned:
                self._condemned[prune_id] = _read_condemned(self.store, key)
            pending[prune_id] = self._condemned[prune_id]
        return pending

    def release(self, wanted: Collection[str]) -> frozenset[str]:
        """Call off every prune that condemns what is wanted, there or not; return what a sweeper got to first.

        Where a sweep has won, this waits until it is over; what is returned must then be sent without skipping.
        """
        lost: set[str] = set()
        for prune_id, condemned in sorted(self.look().items()):
            at_stake = condemned.intersection(wanted)
            if not at_stake:
                continue
            if not self._cancel(prune_id):
                self._await_sweep(prune_id)
                lost |= at_stake
            self._close(prune_id)
        return frozenset(lost)

    def _close(self, prune_id: str) -> None:
        self._over.add(prune_id)
        self._condemned.pop(prune_id, None)

    def _cancel(self, prune_id: str) -> bool:
        try:
            self.store.create(layout.prune_decision(prune_id), CANCEL)
        except ObjectExists:
            return decision(self.store, prune_id) == CANCEL
        return True

    def _await_sweep(self, prune_id: str) -> None:
        until = self.clock.monotonic() + SWEEP_LIMIT_S + REQUEST_TIMEOUT_S
        while self.clock.monotonic() < until:
            try:
                self.store.stat(layout.prune_done(prune_id))
                return
            except ObjectNotFound:
                self.clock.sleep(SWEEP_POLL_S)


def decision(store: ObjectStore, prune_id: str) -> bytes:
    """Return what was decided about a prune, b"" where nothing was, or where it is tidied away."""
    try:
        data = store.read(layout.prune_decision(prune_id))
    except ObjectNotFound:
        return b""
    return data.split(maxsplit=1)[0] if data.strip() else SWEEP


def _read_condemned(store: ObjectStore, key: str) -> frozenset[str]:
    try:
        return frozenset(read_digests(key, store.read(key)))
    except ObjectNotFound:
        return frozenset()


def read_digests(key: str, data: bytes) -> list[str]:
    """Return the digests that a push lease or a prune record names, 64 hex digits each.

    Raises:
        Corrupt, NewerFormat
    """
    try:
        record: Mapping[str, Any] = json.loads(data)
        check_format(record, key)
        digests = [str(digest).removeprefix(_PREFIX) for digest in record["digests"]]
        for digest in digests:
            if not _DIGEST.fullmatch(digest):
                raise ValueError(f"{digest!r} is none")
        return digests
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{key} lists no digests ({error}); remove it, then run it again", path=key) from error
