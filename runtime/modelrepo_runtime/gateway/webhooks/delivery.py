"""The loop that empties the outbox; every gateway runs one, and they share the work by leases."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from modelrepo.errors import ModelRepoError, Unreachable
from modelrepo_runtime.gateway.webhooks.sending import Sender, Sent
from modelrepo_runtime.gateway.webhooks.signing import Places
from modelrepo_runtime.jobs import Job, new_id
from modelrepo_runtime.queue.outbox import LEASE_S, Delivery, Outbox, host_of, next_wait_s

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

AT_ONCE = 32
"""Tries under way at the same time."""
PER_HOST = 4
"""Of those to one host, in the whole fleet: a receiver that hangs takes no more."""
POLL_S = 0.5
REST_AFTER_LOOK = 5.0
"""A look that finds nothing is repeated after so many times its own length: a long outbox must not be all we do."""
AVOID_FIRST_S, AVOID_LONGEST_S = 2.0, 60.0
"""How long a host that did not answer at all is left alone by this gateway; doubled each time."""


class Ask(Protocol):
    """Runs a call that blocks, elsewhere than in the event loop."""

    def __call__(self, call: Callable[[], Answer], /) -> Awaitable[Answer]: ...


async def in_a_thread(call: Callable[[], Answer]) -> Answer:
    return await asyncio.to_thread(call)


class Avoided:
    """Hosts that are left alone for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, float]] = {}

    def failed(self, host: str) -> None:
        _, wait_s = self._until.get(host, (0.0, AVOID_FIRST_S / 2))
        wait_s = min(2 * wait_s, AVOID_LONGEST_S)
        self._until[host] = (self._clock() + wait_s, wait_s)

    def answered(self, host: str) -> None:
        self._until.pop(host, None)

    def now(self) -> tuple[str, ...]:
        """Return the hosts to be left alone; one that has been for long is forgotten."""
        now = self._clock()
        for host in [host for host, (until, _) in self._until.items() if until + AVOID_LONGEST_S < now]:
            del self._until[host]
        return tuple(host for host, (until, _) in self._until.items() if until > now)


class DeliveryLoop:
    """Takes events that are due, has them sent, and says what came of it, until it is stopped."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        places: Callable[[Job], Places] = lambda _job: {},
        ask: Ask = in_a_thread,
        poll_s: float = POLL_S,
        lease_s: float = LEASE_S,
        told: Callable[[Delivery, Sent], None] = lambda _delivery, _sent: None,
    ) -> None:
        self._outbox, self._sender, self._places, self._ask = outbox, sender, places, ask
        self._poll_s, self._lease_s, self._told = poll_s, lease_s, told
        self._holder = new_id("sender")
        self._under_way: set[asyncio.Task[None]] = set()
        self._avoided = Avoided()
        self._news = asyncio.Event()
        self._stopping = False

    def kick(self) -> None:
        """Look at the outbox now rather than at the next poll."""
        self._news.set()

    async def stop(self) -> None:
        """Take nothing more, and wait for what is under way."""
        self._stopping = True
        self.kick()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def run(self) -> None:
        """Send until stopped. A queue that does not answer is asked again; no event is lost by it."""
        while not self._stopping:
            self._news.clear()
            began = time.monotonic()
            try:
                taken = await self._take()
            except Unreachable as error:
                log.warning("webhooks wait: %s", error)
                taken = 0
            except Exception:
                log.exception("a fault in the sender of webhooks")
                taken = 0
            if not taken:
                wait_s = max(self._poll_s, REST_AFTER_LOOK * (time.monotonic() - began))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), wait_s)

    async def _take(self) -> int:
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return 0
        avoid = self._avoided.now()
        taken = await self._ask(
            lambda: self._outbox.take_deliveries(
                self._holder, free, lease_s=self._lease_s, per_host=PER_HOST, avoid=avoid
            )
        )
        for delivery in taken:
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return len(taken)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.kick()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a webhook's try was not settled, it is tried again: %s", error)

    async def _deliver(self, delivery: Delivery) -> None:
        host = host_of(delivery.webhook.url)
        try:
            places = await self._ask(lambda: self._places(delivery.job))
        except ModelRepoError:
            places = {}  # an event without URLs is worth more than none: the job can be asked for
        sent = await self._sender.send(delivery, places)
        if sent.answered:
            self._avoided.answered(host)
        else:
            self._avoided.failed(host)
        await self._ask(lambda: self._settle(delivery, sent))
        self._told(delivery, sent)

    def _settle(self, delivery: Delivery, sent: Sent) -> None:
        if sent.gone:
            self._outbox.drop_deliveries(delivery.job.id, f"{host_of(delivery.webhook.url)} {sent.error}")
            return
        again_in_s = None
        if sent.error is not None:
            again_in_s = next_wait_s(delivery.tries + 1, jitter=random.uniform(-0.1, 0.1), asked_s=sent.asked_s)
        self._outbox.settle_delivery(delivery.id, self._holder, sent.error, again_in_s=again_in_s)
