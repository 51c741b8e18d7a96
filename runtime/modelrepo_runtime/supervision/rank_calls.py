"""Call all ranks of a group at once, and end the others where one has ended in a way that leaves them waiting."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .child import Child

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Returned(Generic[Answer]):
    """What a call of one rank came to: an answer or what it raised."""

    rank: int
    answer: Answer | None
    error: BaseException | None
    alive: bool


def call_all(
    ranks: Sequence[Child],
    call: Callable[[int, Child], Answer],
    patience_s: Callable[[Returned[Answer]], float | None],
    end: Callable[[], object],
) -> list[Returned[Answer]]:
    """Call each rank in a thread of its own; returns all answers, in the order in which they came.

    `patience_s` says how long the others may go on after an answer, None for as long as they like; then `end` is
    called, after which every call that is still out must return.
    """
    news: queue.SimpleQueue[Returned[Answer]] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_call, args=(place, child, call, news), name=f"rank {place} of {child.spec.name}")
        for place, child in enumerate(ranks)
    ]
    came: list[Returned[Answer]] = []
    until: float | None = None
    try:
        for thread in threads:
            thread.start()
        while len(came) < len(threads):
            try:
                came.append(news.get(timeout=None if until is None else max(0.0, until - time.monotonic())))
            except queue.Empty:
                end()
                came += [news.get() for _ in range(len(threads) - len(came))]
                break
            limit_s = patience_s(came[-1])
            if limit_s is not None:
                until = min(time.monotonic() + limit_s, until or float("inf"))
    except BaseException:
        end()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return came


def do_all(ranks: Sequence[Child], act: Callable[[Child], Answer]) -> list[Answer]:
    """Do something with all ranks at once that ends by itself."""
    returned = call_all(ranks, lambda _, child: act(child), lambda _: None, lambda: None)
    answers = []
    for one in sorted(returned, key=lambda one: one.rank):
        if one.error is not None:
            raise one.error
        answers.append(one.answer)
    return answers  # type: ignore[return-value]


def _call(
    rank: int, child: Child, call: Callable[[int, Child], Answer], news: queue.SimpleQueue[Returned[Answer]]
) -> None:
    try:
        answer = call(rank, child)
    except BaseException as error:  # noqa: BLE001 - belongs to the caller
        news.put(Returned(rank, None, error, child.alive))
    else:
        news.put(Returned(rank, answer, None, child.alive))
