"""Heartbeats of many sessions, told to the queue together: one call a second where they are many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from modelrepo.errors import ModelRepoError, StaleSession, Unreachable
from modelrepo_runtime.queue.port import BeatCall, BeatReply

BeatAll = Callable[[Sequence[BeatCall]], Awaitable[tuple[BeatReply | StaleSession, ...]]]

FEW = 100
"""So many in a second are told at once: a small fleet should not wait for its answers."""
LINGER_S = 0.5
MOST = 500


class Beats:
    """Gathers beats while a call is under way, and for a moment more where there are many."""

    def __init__(self, beat_all: BeatAll) -> None:
        self._beat_all = beat_all
        self._waiting: deque[tuple[BeatCall, asyncio.Future[BeatReply]]] = deque()
        self._recent: deque[float] = deque()
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def beat(self, call: BeatCall) -> BeatReply:
        """See JobQueue.beat."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="beats")
        answer: asyncio.Future[BeatReply] = loop.create_future()
        self._waiting.append((call, answer))
        self._recent.append(loop.time())
        self._kick.set()
        return await answer

    async def close(self) -> None:
        """Tell no more; who waits is refused."""
        if self._task is not None:
            self._task.cancel()
        while self._waiting:
            _refuse(self._waiting.popleft()[1], Unreachable("the gateway is about to stop; ask another"))

    async def _run(self) -> None:
        while True:
            await self._kick.wait()
            self._kick.clear()
            if self._are_many():
                await asyncio.sleep(LINGER_S)
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
                await self._tell(batch)

    def _are_many(self) -> bool:
        since = asyncio.get_running_loop().time() - 1.0
        while self._recent and self._recent[0] < since:
            self._recent.popleft()
        return len(self._recent) > FEW

    async def _tell(self, batch: list[tuple[BeatCall, asyncio.Future[BeatReply]]]) -> None:
        try:
            answers = await self._beat_all([call for call, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                _refuse(future, Unreachable("the gateway is about to stop; ask another"))
            raise
        except Exception as error:  # noqa: BLE001 - each of them gets it, and the next batch its turn
            if len(batch) == 1 or not isinstance(error, ModelRepoError) or isinstance(error, Unreachable):
                for _, future in batch:
                    _refuse(future, error)
                return
            for one in batch:  # what one of them says is refused: not the others' fault
                await self._tell([one])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, StaleSession):
                _refuse(future, answer)
            elif not future.done():
                future.set_result(answer)


def _refuse(future: asyncio.Future[BeatReply], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
