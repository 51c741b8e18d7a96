"""Find out whether a store's create-if-absent holds, by racing for it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.errors import ObjectChanged, ObjectExists
from modelrepo.stores.port import ObjectStore

CREATORS = 8
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of it.

    `winners`: for each round, how many creators were told that they created. `kept`: a winner's bytes stayed each time.
    `claimed`: the adapter itself says that it creates-if-absent.
    """

    creators: int
    winners: tuple[int, ...]
    kept: bool
    claimed: bool

    @property
    def trusted(self) -> bool:
        """Whether of many creators exactly one won, every time."""
        return self.claimed and self.kept and all(count == 1 for count in self.winners)


def probe(
    store: ObjectStore,
    *,
    creators: int = CREATORS,
    rounds: int = ROUNDS,
    client: Callable[[], ObjectStore] | None = None,
) -> ProbeResult:
    """Let `creators` race for one key, `rounds` times, and delete what they wrote.

    `client` opens a further client of the same store, which every other creator uses; without it they share `store`.
    """
    probe_id = secrets.token_hex(8)
    pair = (store, client() if client else store)
    keys = [layout.probe(probe_id, number) for number in range(rounds)]
    # The rounds run beside each other: a server that makes the losers wait does so once.
    with ThreadPoolExecutor(creators * rounds, thread_name_prefix="modelrepo-probe") as pool:
        try:
            races = [_Race(key, threading.Barrier(creators)) for key in keys]
            won = [[pool.submit(race.run, pair[index % 2], index) for index in range(creators)] for race in races]
            happy = [[_mark(index) for index, winner in enumerate(race) if winner.result()] for race in won]
            kept = all(store.read(key) in marks for key, marks in zip(keys, happy, strict=True))
        finally:
            pool.shutdown()
            for key in keys:
                store.delete(key)
    return ProbeResult(creators, tuple(len(marks) for marks in happy), kept, store.ability.conditional_create)


@dataclass(frozen=True, slots=True)
class _Race:
    key: str
    start: threading.Barrier

    def run(self, store: ObjectStore, index: int) -> bool:
        """Create, at the same moment as the others, and say whether that was us."""
        self.start.wait(timeout=60)
        try:
            store.create(self.key, _mark(index))
        except (ObjectExists, ObjectChanged):
            return False
        return True


def _mark(index: int) -> bytes:
    return f"creator {index}\n".encode()
