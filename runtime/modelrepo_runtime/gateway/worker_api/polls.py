"""Long polls for jobs: thousands wait as futures, and one call claims for many of them.

Polls are kept in groups of those that could run the same jobs. A wake-up asks for a few of a group, and for twice as
many each time all of those got a job: a single new job costs a small claim, and a flood of them large ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from modelrepo.errors import StaleSession, Unreachable
from modelrepo_runtime.jobs import Claim
from modelrepo_runtime.queue.port import ClaimCall, Offer

log = logging.getLogger(__name__)

Answer: TypeAlias = tuple[Claim, ...] | StaleSession
ClaimAll: TypeAlias = Callable[[Sequence[ClaimCall]], Awaitable[tuple[Answer, ...]]]
Shape: TypeAlias = tuple[object, ...]

FEWEST, MOST = 4, 64
"""Polls that one call claims for."""
CALLS_AT_ONCE = 2
NET_S = 1.0
"""Every group is asked for that often, whatever was heard: for delayed jobs that are due, and lost wake-ups."""


@dataclass(eq=False, slots=True)
class Poll:
    """One request that waits for jobs."""

    call: ClaimCall
    cluster: str | None
    answer: asyncio.Future[tuple[Claim, ...]]
    asked: bool = False
    """A call that claims for it is under way."""
    over: bool = False
    """It is to be answered when that call is done, with jobs or without."""
    timer: asyncio.TimerHandle | None = None
    groups: tuple[Group, ...] = ()


@dataclass(eq=False, slots=True)
class Group:
    """Polls that could run the same jobs, the longest waiting first."""

    shape: Shape
    model: str
    polls: OrderedDict[Poll, None] = field(default_factory=OrderedDict)
    woken: bool = False
    size: int = FEWEST


class Polls:
    """The polls of one gateway. Everything here runs in the event loop."""

    def __init__(self, claim_all: ClaimAll, listen: Callable[[str], None] = lambda _: None) -> None:
        self._claim_all, self._listen = claim_all, listen
        self._groups: dict[Shape, Group] = {}
        self._by_model: dict[str, list[Group]] = {}
        self._by_session: dict[str, Poll] = {}
        self._fresh: OrderedDict[Poll, None] = OrderedDict()
        self._kick = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def __len__(self) -> int:
        return len(self._by_session)

    async def claim(
        self, call: ClaimCall, wait_s: float, cluster: str | None = None, gone: asyncio.Future[None] | None = None
    ) -> tuple[Claim, ...]:
        """Claim now; where there is nothing, wait for jobs up to `wait_s`, or until the client is gone.

        A later claim of the same session ends an earlier one that waits. Raises: StaleSession, Unreachable.
        """
        loop = asyncio.get_running_loop()
        if not self._tasks:
            self._tasks = [loop.create_task(self._run(), name=f"claims {number}") for number in range(CALLS_AT_ONCE)]
            self._tasks.append(loop.create_task(self._cast_net(), name="claims net"))
        before = self._by_session.get(call.session.id)
        if before is not None:
            self._end(before)
            if before.asked:  # its call may be claiming under the number that is asked for again
                await asyncio.wait([before.answer])
        poll = Poll(call, cluster, loop.create_future())
        self._add(poll)
        if wait_s > 0 and not self._stopping:
            poll.timer = loop.call_later(wait_s, self._end, poll)
        else:
            poll.over = True
        poll.answer.add_done_callback(_retrieved)
        either: list[asyncio.Future[Any]] = [poll.answer, *([gone] if gone is not None else [])]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return poll.answer.result() if poll.answer.done() else ()
        finally:
            poll.over = True
            if not poll.asked:  # else when its call is done: until then a repeat must wait for that
                self._remove(poll)

    def wake(self, model: str) -> None:
        """Jobs of a model may be ready."""
        for group in self._by_model.get(model, ()):
            group.woken = True
        self._kick.set()

    def end_all(self, which: Callable[[Poll], bool] = lambda _: True) -> None:
        """Answer those that wait, without jobs: something else is to be told."""
        for poll in list(self._by_session.values()):
            if which(poll):
                self._end(poll)

    def stop_waiting(self) -> None:
        """Answer who waits, and from now on everybody at once: the gateway is about to stop."""
        self._stopping = True
        self.end_all()

    async def close(self) -> None:
        """Claim no more; who waits gets an empty answer."""
        self.end_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _add(self, poll: Poll) -> None:
        groups = {shape_of(offer, poll.cluster): offer.model for offer in poll.call.offers}
        poll.groups = tuple(self._group(shape, model) for shape, model in groups.items())
        for group in poll.groups:
            group.polls[poll] = None
        self._by_session[poll.call.session.id] = poll
        self._fresh[poll] = None
        self._kick.set()

    def _group(self, shape: Shape, model: str) -> Group:
        group = self._groups.get(shape)
        if group is None:
            group = self._groups[shape] = Group(shape, model)
            others = self._by_model.setdefault(model, [])
            if not others:
                self._listen(model)
            others.append(group)
        return group

    def _remove(self, poll: Poll) -> None:
        if poll.timer is not None:
            poll.timer.cancel()
        self._fresh.pop(poll, None)
        if self._by_session.get(poll.call.session.id) is poll:
            del self._by_session[poll.call.session.id]
        for group in poll.groups:
            group.polls.pop(poll, None)
            if not group.polls and self._groups.get(group.shape) is group:
                del self._groups[group.shape]
                self._by_model[group.model].remove(group)

    def _end(self, poll: Poll) -> None:
        poll.over = True
        if not poll.asked and poll not in self._fresh:
            self._answer(poll, ())

    async def _run(self) -> None:
        while True:
            await self._kick.wait()
            self._kick.clear()
            while batch := self._next():
                if self._fresh or any(group.woken for group in self._groups.values()):
                    self._kick.set()  # for the other task
                try:
                    await self._ask(batch)
                except Exception:
                    log.exception("claiming failed")
                    self._give(batch, [Unreachable("the gateway failed; ask again")] * len(batch))

    def _next(self) -> list[Poll]:
        """Choose whom to claim for: who has just come, else some of a group that was woken."""
        if self._fresh:
            return self._mark(poll for poll, _ in (self._fresh.popitem(last=False) for _ in range(self._fresh_size())))
        for group in self._groups.values():
            if group.woken:
                idle = (poll for poll in group.polls if not poll.asked)
                batch = self._mark(poll for poll, _ in zip(idle, range(group.size), strict=False))
                if batch:
                    return batch
                group.woken = False
        return []

    def _fresh_size(self) -> int:
        return min(MOST, len(self._fresh))

    def _mark(self, polls: Iterable[Poll]) -> list[Poll]:
        batch = list(polls)
        for poll in batch:
            poll.asked = True
        return batch

    async def _ask(self, batch: list[Poll]) -> None:
        woken = {group for poll in batch for group in poll.groups if group.woken}
        for group in woken:
            group.woken = False  # what is heard from now on counts anew
        try:
            answers: Sequence[Answer | BaseException] = await self._claim_all([poll.call for poll in batch])
        except asyncio.CancelledError:
            answers = [Unreachable("the gateway is about to stop; ask another")] * len(batch)
            self._give(batch, answers)
            raise
        except Exception as error:  # noqa: BLE001 - each of them gets it, and the next batch its turn
            answers = [error] * len(batch)
        self._give(batch, answers)
        got = {poll for poll, answer in zip(batch, answers, strict=True) if isinstance(answer, tuple) and answer}
        for group in woken:
            if group.polls and all(poll in got for poll in batch if group in poll.groups):
                group.woken, group.size = True, min(MOST, group.size * 2)
                self._kick.set()
            elif not group.woken:
                group.size = FEWEST

    def _give(self, batch: list[Poll], answers: Sequence[Answer | BaseException]) -> None:
        for poll, answer in zip(batch, answers, strict=True):
            poll.asked = False
            if answer or poll.over or isinstance(answer, BaseException):
                self._answer(poll, answer)

    def _answer(self, poll: Poll, answer: Answer | BaseException) -> None:
        """Answer a request, and ask for it no more."""
        self._remove(poll)
        if poll.answer.done():
            return
        if isinstance(answer, BaseException):
            poll.answer.set_exception(answer)
        else:
            poll.answer.set_result(answer)

    async def _cast_net(self) -> None:
        while True:
            await asyncio.sleep(NET_S)
            for group in self._groups.values():
                group.woken = True
            if self._groups:
                self._kick.set()


def _retrieved(answer: asyncio.Future[tuple[Claim, ...]]) -> None:
    """Nobody may be left to hear an error."""
    if not answer.cancelled():
        answer.exception()


def shape_of(offer: Offer, cluster: str | None) -> Shape:
    """Return what two offers share that could run the same jobs."""
    what = (offer.model, offer.version, offer.stages, offer.plan)
    return (*what, offer.staged, offer.accelerator, offer.warm, offer.room, cluster)
