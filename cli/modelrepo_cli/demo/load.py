"""Steady load: one user a tier, each submitting at a pace of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

Submit = Callable[[str, int], str]  # (tier, number of the job) -> job id


class Load:
    """Submits from one thread a tier between `with` and its end, and keeps the ids that it was given."""

    def __init__(self, submit: Submit, between_jobs_s: Mapping[str, float]) -> None:
        self.between_jobs_s = between_jobs_s
        self._submit = submit
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._submitted: list[str] = []
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._user, args=(tier, pause), name=f"demo-user-{tier}", daemon=True)
            for tier, pause in between_jobs_s.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the users and wait for what they are submitting; stopping twice is legal."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def check(self) -> None:
        """Raises: what a submission raised."""
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def submitted(self) -> tuple[str, ...]:
        """Return the ids so far."""
        with self._lock:
            return tuple(self._submitted)

    def _user(self, tier: str, pause_s: float) -> None:
        while not self._stop.is_set():
            try:
                job = self._submit(tier, next(self._numbers))
            except Exception as error:  # noqa: BLE001 - told to the main thread, which ends the demo with it
                with self._lock:
                    self._failure = error
                return
            with self._lock:
                self._submitted.append(job)
            self._stop.wait(pause_s)
