"""A Waiter that listens through a gateway: a request that is answered when there is news."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from modelrepo.errors import ModelRepoError, Unreachable
from modelrepo_runtime.queue.http.calls import Listened, to_bytes
from modelrepo_runtime.queue.http.wire import read
from modelrepo_runtime.remote.connection import ANSWER_TIMEOUT_S, Interrupt
from modelrepo_runtime.remote.talk import Talk

LONGEST_LISTEN_S = 2.0


class HttpWaiter:
    """See Waiter. A gateway that does not know the listener any more answers that there is news."""

    def __init__(self, talk: Talk, models: Sequence[str], jobs: Sequence[str]) -> None:
        self._talk, self._models, self._jobs = talk, list(models), list(jobs)
        self._interrupt = Interrupt()
        self._closed = False
        self._listener = self._listen(None, 0.0).listener

    def wait(self, timeout_s: float) -> bool:
        """See Waiter. Raises: Unreachable."""
        interrupt = self._interrupt
        try:
            found = self._listen(self._listener, max(0.0, min(timeout_s, LONGEST_LISTEN_S)), interrupt)
        except Unreachable:
            if not interrupt.is_set:
                raise
            self._interrupt = Interrupt()
            return True
        self._listener = found.listener
        return found.news

    def wake(self) -> None:
        """See Waiter."""
        self._interrupt.set()

    def close(self) -> None:
        """See Waiter."""
        if self._closed:
            return
        self._closed = True
        self._interrupt.set()
        with suppress(ModelRepoError):
            self._talk.post("/v1/fleet/listen-no-more", to_bytes({"listener": self._listener}, "listener"))

    def _listen(self, listener: str | None, timeout_s: float, interrupt: Interrupt | None = None) -> Listened:
        told = {"models": self._models, "jobs": self._jobs, "listener": listener, "timeout_s": timeout_s}
        answer = self._talk.post(
            "/v1/fleet/listen",
            to_bytes(told, "listener"),
            timeout_s=timeout_s + ANSWER_TIMEOUT_S,
            repeatable=True,
            interrupt=interrupt,
        )
        return read(Listened, answer, "listen")
