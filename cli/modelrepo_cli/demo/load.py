"""Steady load: one user a tier, each submitting at a pace of its own."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

Submit = Callable[[str, int], object]  # (tier, number of the job)


class Load:
    """Submits from one thread a tier, between `with` and its end."""

    def __init__(self, submit: Submit, between_jobs_s: Mapping[str, float]) -> None:
        self._submit = submit
        self._numbers = itertools.count()
        self._stop = threading.Event()
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
        if self._failure is not None:
            raise self._failure

    def _user(self, tier: str, pause_s: float) -> None:
        while not self._stop.is_set():
            try:
                self._submit(tier, next(self._numbers))
            except Exception as error:  # noqa: BLE001 - told to the main thread, which ends the demo with it
                self._failure = error
                return
            self._stop.wait(pause_s)
