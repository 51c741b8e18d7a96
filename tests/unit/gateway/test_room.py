"""Room for jobs of a tenant, as a gateway counts it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from modelrepo_runtime.gateway.refusals import TooManyQueued
from modelrepo_runtime.gateway.room import COUNT_EVERY_S, Room
from modelrepo_runtime.testing.clock import FakeClock


class Counted:
    """A queue in which so many wait; `asked` counts the looks."""

    def __init__(self) -> None:
        self.waiting, self.asked = 0, 0

    async def __call__(self, tenant: str, most: int) -> int:
        self.asked += 1
        return min(self.waiting, most)


def test_room_is_counted_when_it_is_unknown_used_up_or_old() -> None:
    counted, clock = Counted(), FakeClock()
    room = Room(counted, clock)

    async def submit() -> bool:
        with suppress(TooManyQueued):
            async with room.one_more("acme", 3):
                counted.waiting += 1
                return True
        return False

    async def story() -> None:
        assert [await submit() for _ in range(4)] == [True, True, True, False]
        assert counted.asked == 2
        counted.waiting = 1
        assert [await submit() for _ in range(3)] == [True, True, False]
        clock.advance(COUNT_EVERY_S + 1)
        counted.waiting, counted.asked = 0, 0
        assert await submit()
        assert counted.asked == 1

    asyncio.run(story())


def test_submissions_under_way_take_room_and_failed_ones_give_it_back() -> None:
    room = Room(Counted())

    async def story() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(room.one_more("acme", 2))
            with pytest.raises(TooManyQueued, match="2 jobs of tenant 'acme' wait already"):
                await stack.enter_async_context(room.one_more("acme", 2))
            await stack.enter_async_context(room.one_more("other", 2))
        for _ in range(5):
            with pytest.raises(RuntimeError):
                async with room.one_more("third", 1):
                    raise RuntimeError

    asyncio.run(story())
