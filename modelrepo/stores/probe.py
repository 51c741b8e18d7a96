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
    clients = [pair[index % 2] for index in range(creators)]
    winners: list[int] = []
    kept = True
    with ThreadPoolExecutor(creators, thread_name_prefix="modelrepo-probe") as pool:
        for number in range(rounds):
            key = layout.probe(probe_id, number)
            start = threading.Barrier(creators)
            try:
                won = list(pool.map(lambda each: _race(each[1], key, each[0], start), enumerate(clients)))  # noqa: B023
                happy = [_mark(index) for index, winner in enumerate(won) if winner]
                winners.append(len(happy))
                kept = kept and store.read(key) in happy
            finally:
                store.delete(key)
    return ProbeResult(creators, tuple(winners), kept, store.ability.conditional_create)


def _race(store: ObjectStore, key: str, index: int, start: threading.Barrier) -> bool:
    start.wait(timeout=60)
    try:
        store.create(key, _mark(index))
    except (ObjectExists, ObjectChanged):
        return False
    return True


def _mark(index: int) -> bytes:
    return f"creator {index}\n".encode()
