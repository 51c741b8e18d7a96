"""One of the callers who wait runs the calls of all.

Whoever comes while nobody runs takes what waits, its own call included, and runs it at once, in its own thread; who
comes meanwhile waits, and one of them runs all of those next. Alone, a call costs no change of thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from modelrepo.errors import ModelRepoError, Unreachable

Call = TypeVar("Call")
Answer = TypeVar("Answer")
LARGEST = 256
"""Calls that are run together: bounds how long the first of them waits for the last."""


@dataclass(slots=True, eq=False)
class _Asking(Generic[Call, Answer]):
    calls: Sequence[Call]
    told: threading.Event = field(default_factory=threading.Event)
    answers: Sequence[Answer] | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Shard(Generic[Call, Answer]):
    waiting: list[_Asking[Call, Answer]] = field(default_factory=list)
    led: bool = False


class Combiner(Generic[Call, Answer]):
    """Calls of one shard run together, shards beside each other."""

    def __init__(self, run: Callable[[Sequence[Call]], Sequence[Answer]]) -> None:
        self._run = run
        self._guard = threading.Lock()
        self._shards: dict[Hashable, _Shard[Call, Answer]] = defaultdict(_Shard)

    def ask(self, key: Hashable, calls: Sequence[Call]) -> Sequence[Answer]:
        """Return the answers to these calls. Raises: what running them raised."""
        asking: _Asking[Call, Answer] = _Asking(calls)
        with self._guard:
            shard = self._shards[key]
            shard.waiting.append(asking)
            leads, shard.led = not shard.led, True
        if not leads:
            asking.told.wait()
        if asking.answers is None and asking.error is None:
            self._lead(key, shard)
        if asking.error is not None:
            raise asking.error
        assert asking.answers is not None
        return asking.answers

    def _lead(self, key: Hashable, shard: _Shard[Call, Answer]) -> None:
        """Run what waits, then let another go on."""
        with self._guard:
            group = _some(shard.waiting)
            del shard.waiting[: len(group)]
        try:
            self._answer(group)
        finally:
            with self._guard:
                follower = shard.waiting[0] if shard.waiting else None
                shard.led = follower is not None
                if follower is None:
                    self._shards.pop(key, None)
            for asking in group:
                if asking.answers is None and asking.error is None:
                    asking.error = Unreachable("the call that ran this one was broken off; try again")
                asking.told.set()
            if follower is not None:
                follower.told.set()

    def _answer(self, group: Sequence[_Asking[Call, Answer]]) -> None:
        try:
            answers = self._run([call for asking in group for call in asking.calls])
        except Exception as error:  # noqa: BLE001 - whatever went wrong, it is every waiting caller's answer
            if len(group) > 1 and isinstance(error, ModelRepoError) and not isinstance(error, Unreachable):
                for asking in group:  # it may be the fault of one of them
                    self._answer([asking])
                return
            for asking in group:
                asking.error = error
            return
        at = 0
        for asking in group:
            asking.answers = answers[at : at + len(asking.calls)]
            at += len(asking.calls)


def _some(waiting: Sequence[_Asking[Call, Answer]]) -> list[_Asking[Call, Answer]]:
    """Return the first that come to LARGEST calls together, at least one."""
    found: list[_Asking[Call, Answer]] = []
    calls = 0
    for asking in waiting:
        calls += len(asking.calls)
        if found and calls > LARGEST:
            break
        found.append(asking)
    return found
