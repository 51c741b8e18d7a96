"""From the queue's own wake-ups to the event loop: a thread for each model that is polled for and each listener."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.queue.http.calls import Listened
from modelrepo_runtime.queue.port import JobQueue, Waiter

log = logging.getLogger(__name__)

PAUSE_S = 1.0
LISTENERS = 32
"""Threads for those who listen by `/v1/fleet/listen`; beyond, they are told that there may be news."""
FORGOTTEN_S = 120.0


class Waking:
    """Listens for ready jobs of models, from the first poll for each on."""

    def __init__(self, queue: JobQueue, wake: Callable[[str], None]) -> None:
        self._queue, self._wake = queue, wake
        self._models: dict[str, threading.Thread] = {}
        self._waiters: dict[str, Waiter] = {}
        self._stopped = False
        self._lock = threading.Lock()

    def listen(self, model: str) -> None:
        """Wake for a model from now on. Called in the event loop."""
        if model in self._models or self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._models[model] = threading.Thread(target=self._run, args=(model, loop), name=f"wakes {model}", daemon=True)
        self._models[model].start()

    def close(self) -> None:
        """Listen no more."""
        with self._lock:
            self._stopped = True
            for waiter in self._waiters.values():
                waiter.wake()
        for thread in self._models.values():
            thread.join(PAUSE_S)

    def _run(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopped:
            try:
                self._wait(model, loop)
            except ModelRepoError as error:
                log.warning("cannot listen for jobs of %s: %s", model, error)
                time.sleep(PAUSE_S)
            except RuntimeError:  # the loop is closed
                return

    def _wait(self, model: str, loop: asyncio.AbstractEventLoop) -> None:
        waiter = self._queue.waiter([model])
        with self._lock:
            self._waiters[model] = waiter
        try:
            loop.call_soon_threadsafe(self._wake, model)  # for what came before we listened
            while not self._stopped:
                if waiter.wait(PAUSE_S) and not self._stopped:
                    loop.call_soon_threadsafe(self._wake, model)
        finally:
            with self._lock:
                del self._waiters[model]
            waiter.close()


@dataclass(slots=True)
class _Listener:
    waiter: Waiter
    used_at: float
    waits: int = 0


class Listeners:
    """Waiters that clients hold by name. They live in this process alone: another gateway says that there is news."""

    def __init__(self, queue: JobQueue, poll_s: float) -> None:
        self._queue, self._poll_s = queue, poll_s
        self._threads = ThreadPoolExecutor(LISTENERS, thread_name_prefix="gateway-listen")
        self._listeners: dict[str, _Listener] = {}
        self._lock = threading.Lock()
        self._waiting = 0
        self._stopped = threading.Event()

    async def listen(self, name: str | None, models: Sequence[str], jobs: Sequence[str], timeout_s: float) -> Listened:
        """Wait for news of models and jobs. A listener that is not known begins anew, with the word that there is."""
        if self._waiting >= LISTENERS:
            await asyncio.sleep(min(timeout_s, self._poll_s))
            return Listened(name or "", True)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._listen, name, models, jobs, timeout_s)
        finally:
            self._waiting -= 1

    async def forget(self, name: str) -> None:
        """End a listener."""
        with self._lock:
            found = self._listeners.pop(name, None)
        if found is not None:
            found.waiter.wake()
            if not found.waits:
                found.waiter.close()

    def close(self) -> None:
        """End all of them."""
        self._stopped.set()
        with self._lock:
            for listener in self._listeners.values():
                listener.waiter.wake()
        self._threads.shutdown(wait=True)
        for listener in self._listeners.values():
            listener.waiter.close()
        self._listeners.clear()

    def _listen(self, name: str | None, models: Sequence[str], jobs: Sequence[str], timeout_s: float) -> Listened:
        now = time.monotonic()
        with self._lock:
            found = self._listeners.get(name or "")
            old = [key for key, one in self._listeners.items() if now - one.used_at > FORGOTTEN_S and not one.waits]
            dropped = [self._listeners.pop(key) for key in old if key != name]
            if found is not None:
                found.used_at, found.waits = now + timeout_s, found.waits + 1
        for listener in dropped:
            listener.waiter.close()
        if found is None:
            fresh = secrets.token_hex(8)
            waiter = self._queue.waiter(models, jobs=jobs)
            with self._lock:
                self._listeners[fresh] = _Listener(waiter, now)
            return Listened(fresh, name is not None)
        try:
            return Listened(name or "", self._wait(found.waiter, timeout_s))
        finally:
            with self._lock:
                found.waits -= 1
                gone = not found.waits and name not in self._listeners
            if gone and not self._stopped.is_set():
                found.waiter.close()

    def _wait(self, waiter: Waiter, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while not self._stopped.is_set():
            left = until - time.monotonic()
            if waiter.wait(max(0.0, left)):
                return True
            if left <= 0:
                return False
        return True
