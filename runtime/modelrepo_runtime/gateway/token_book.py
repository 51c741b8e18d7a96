"""Tokens as a gateway knows them: looked up once in a while, and again for whoever waits long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from modelrepo.errors import ModelRepoError, Unreachable
from modelrepo_runtime.gateway.calls import Calls
from modelrepo_runtime.queue.tokens import Token, TokenStore, opens, read_token

log = logging.getLogger(__name__)

_MOST_CACHED = 20_000
_LEAST_APART_S = 0.05
_OUTAGE_S = 3600.0
"""How long those who were known are let in while the database does not answer."""


@dataclass(eq=False, slots=True)
class Wait:
    """A long wait, and the token that it hangs on; `ended` is done once that opens nothing any more."""

    token_id: str | None
    ended: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class TokenBook:
    """Used from the event loop alone. A revocation is known after `life_s`, and all waits are over after twice that."""

    def __init__(
        self,
        store: TokenStore,
        calls: Calls,
        *,
        life_s: float,
        open_to_all: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._calls, self._life_s, self._clock = store, calls, life_s, clock
        self._open_to_all = open_to_all
        self._known: dict[str, tuple[Token | None, float]] = {}
        self._looking: dict[str, asyncio.Future[Token | None]] = {}
        self._some: tuple[bool, float] = (False, float("-inf"))
        self._waits: dict[str | None, set[Wait]] = {}

    async def find(self, text: str) -> Token | None:
        """Return the live token that this is, None where it is none. Raises: Unreachable."""
        parts = read_token(text)
        if parts is None:
            return None
        token_id, secret = parts
        token = await self._look_up(token_id)
        return token if opens(token, secret) else None

    async def is_open(self) -> bool:
        """Say whether nobody needs a token: on a gateway for its own box, until there is one. Raises: Unreachable."""
        if not self._open_to_all:
            return False
        some, until = self._some
        if self._clock() >= until:
            some = some or bool(await self._calls.run(self._store.all))
            self._some = (some, self._clock() + self._life_s)
        return not some

    @contextmanager
    def waiting(self, token_id: str | None) -> Iterator[asyncio.Future[None]]:
        """Hold a long wait of whoever has this token; None: of those who need none. The future is done at its end."""
        wait = Wait(token_id)
        self._waits.setdefault(token_id, set()).add(wait)
        try:
            yield wait.ended
        finally:
            others = self._waits[token_id]
            others.discard(wait)
            if not others:
                del self._waits[token_id]

    async def watch(self) -> None:
        """Look again at the tokens of all who wait, all in one statement, until it is cancelled."""
        while True:
            await asyncio.sleep(max(_LEAST_APART_S, self._life_s))
            try:
                await self._look_again()
            except ModelRepoError as error:  # whoever waits goes on: an outage is no revocation
                log.warning("cannot look at tokens again: %s", error)
            except Exception:
                log.exception("looking at tokens again failed")

    async def _look_again(self) -> None:
        ids = [token_id for token_id in self._waits if token_id is not None]
        if ids:
            live = await self._calls.run(self._store.live, ids)
            for token_id in ids:
                self._keep(token_id, live.get(token_id))
                if token_id not in live:
                    self._end(token_id)
        if None in self._waits and not await self.is_open():
            self._end(None)

    def _end(self, token_id: str | None) -> None:
        for wait in self._waits.get(token_id, ()):
            if not wait.ended.done():
                wait.ended.set_result(None)

    async def _look_up(self, token_id: str) -> Token | None:
        known, until = self._known.get(token_id, (None, float("-inf")))
        if self._clock() < until:
            return known
        looking = self._looking.get(token_id)
        if looking is None:  # of thousands that come with one token at once, one looks it up
            looking = self._looking[token_id] = asyncio.ensure_future(self._find(token_id, known, until))
            looking.add_done_callback(lambda _: self._looking.pop(token_id, None))
        return await asyncio.shield(looking)

    async def _find(self, token_id: str, known: Token | None, until: float) -> Token | None:
        try:
            known = await self._calls.run(self._store.find, token_id)
        except Unreachable:
            if known is None or self._clock() > until + _OUTAGE_S:
                raise
            return known  # an outage of the database is no reason to turn away those who were known
        self._keep(token_id, known)
        return known

    def _keep(self, token_id: str, token: Token | None) -> None:
        if len(self._known) >= _MOST_CACHED:
            self._known.clear()
        self._known[token_id] = (token, self._clock() + self._life_s)
