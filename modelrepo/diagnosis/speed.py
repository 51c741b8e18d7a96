"""How soon and how fast a store answers, and what time it has there. Everything that is written is deleted again."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.stores.port import ObjectStore

ROUNDS, FEWEST_ROUNDS = 20, 3
PIECES, PIECE_BYTES, THREADS = 16, 2**20, 4
LIMIT_S = 5.0
"""How long each measurement may begin something new: a slow store is found out without waiting for it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long small requests took, in seconds."""

    p50_s: float
    p95_s: float

    @classmethod
    def of(cls, taken_s: list[float]) -> Latency:
        """Take the two quantiles of what was measured: of few, the upper one is the worst."""
        ordered = sorted(taken_s)
        return cls(ordered[(len(ordered) - 1) // 2], ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)])


@dataclass(slots=True)
class Answers:
    """What small requests told: latencies by verb, and by how much the store's clock is ahead of this box's.

    A store may cut its times to whole seconds, so `ahead_s` is the smallest difference that explains all of them.
    """

    taken_s: dict[str, list[float]] = field(default_factory=dict)
    least_ahead_s: float = float("-inf")
    most_ahead_s: float = float("inf")

    @property
    def latencies(self) -> Mapping[str, Latency]:
        return {verb: Latency.of(taken) for verb, taken in self.taken_s.items()}

    @property
    def ahead_s(self) -> float | None:
        """Seconds; None where nothing was written."""
        if self.least_ahead_s == float("-inf"):
            return None
        return min(max(0.0, self.least_ahead_s), self.most_ahead_s)

    def saw_written(self, modified: float, begun: float, ended: float) -> None:
        """Note that an object written between two times of this box has this time in the store."""
        self.least_ahead_s = max(self.least_ahead_s, modified - ended)
        self.most_ahead_s = min(self.most_ahead_s, modified + 1.0 - begun)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Bytes per second, several pieces at once."""

    up: float
    down: float


def time_reads(store: ObjectStore, key: str, clock: Clock) -> Answers:
    """Time small requests that write nothing, on an object that is there."""
    answers = Answers()
    for _ in _rounds(clock):
        _time(answers, "stat", partial(store.stat, key), clock)
        _time(answers, "read", partial(store.read, key), clock)
    return answers


def time_writes(store: ObjectStore, answers: Answers, clock: Clock) -> None:
    """Time small creates too, and compare clocks."""
    with _scratch(store) as keys:
        for number in _rounds(clock):
            key, begun = keys(number), clock.now()
            _time(answers, "create", lambda: store.create(key, b"%d" % number), clock)  # noqa: B023
            answers.saw_written(store.stat(key).modified, begun, clock.now())


def measure_throughput(store: ObjectStore, clock: Clock) -> Throughput:
    """Send a few MiB and fetch them again."""
    with _scratch(store) as keys, ThreadPoolExecutor(THREADS, thread_name_prefix="modelrepo-doctor") as pool:
        data = os.urandom(PIECE_BYTES)
        sent: list[str] = []

        def send(number: int) -> None:
            key = keys(number)
            store.create(key, number.to_bytes(8, "big") + data[8:])
            sent.append(key)

        up = _rate(pool, [partial(send, number) for number in range(PIECES)], clock)
        down = _rate(pool, [partial(store.read, key) for key in sent], clock)
        return Throughput(up, down)


def _rate(pool: ThreadPoolExecutor, calls: list[Callable[[], object]], clock: Clock) -> float:
    begun = clock.monotonic()

    def run(call: Callable[[], object]) -> bool:
        if clock.monotonic() - begun > LIMIT_S:
            return False
        call()
        return True

    done = sum(pool.map(run, calls))
    return done * PIECE_BYTES / max(clock.monotonic() - begun, 1e-6)


def _rounds(clock: Clock) -> Iterator[int]:
    begun = clock.monotonic()
    for number in range(ROUNDS):
        if number >= FEWEST_ROUNDS and clock.monotonic() - begun > LIMIT_S:
            return
        yield number


def _time(answers: Answers, verb: str, call: Callable[[], object], clock: Clock) -> None:
    begun = clock.monotonic()
    call()
    answers.taken_s.setdefault(verb, []).append(clock.monotonic() - begun)


@contextmanager
def _scratch(store: ObjectStore) -> Iterator[Callable[[int], str]]:
    """Name keys that are gone afterwards, whatever happens."""
    scratch_id, used, guard = secrets.token_hex(8), set[str](), threading.Lock()

    def key(number: int) -> str:
        with guard:
            used.add(layout.probe(scratch_id, number))
        return layout.probe(scratch_id, number)

    try:
        yield key
    finally:
        for each in sorted(used):
            store.delete(each)
