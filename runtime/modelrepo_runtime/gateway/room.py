"""How many jobs of a tenant may still wait: counted in the queue now and then, and by what this gateway takes in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from modelrepo_runtime.gateway.refusals import TooManyQueued

COUNT_EVERY_S = 10.0
"""Counting walks over all jobs of the tenant, so it is not done each time; other gateways take in jobs meanwhile."""
RETRY_AFTER_S = 5.0
_MOST_KNOWN = 10_000


@dataclass(slots=True)
class _Known:
    waiting: int
    counted_at: float
    under_way: int = 0


class Room:
    """Used from the event loop alone."""

    def __init__(
        self, count: Callable[[str, int], Awaitable[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._clock = count, clock
        self._known: dict[str, _Known] = {}

    @asynccontextmanager
    async def one_more(self, tenant: str, most: int) -> AsyncIterator[None]:
        """Hold room for one submission of a tenant while it is made. Raises: TooManyQueued."""
        known = self._known.get(tenant)
        if known is None or known.waiting >= most or self._clock() - known.counted_at > COUNT_EVERY_S:
            counted = await self._count(tenant, most)
            known = self._known.get(tenant) or _Known(0, 0.0)
            known.waiting, known.counted_at = counted + known.under_way, self._clock()
            if len(self._known) >= _MOST_KNOWN:
                self._known = {name: each for name, each in self._known.items() if each.under_way}
            self._known[tenant] = known
        if known.waiting >= most:
            raise TooManyQueued(
                f"{most} jobs of tenant {tenant!r} wait already, what the token allows; wait for some to start",
                retry_after_s=RETRY_AFTER_S,
            )
        known.waiting += 1
        known.under_way += 1
        try:
            yield
        except BaseException:
            known.waiting -= 1
            raise
        finally:
            known.under_way -= 1
