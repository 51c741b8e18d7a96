"""A slot with its two threads."""

from __future__ import annotations

import time

from modelrepo_runtime.worker.keeping import Keeper
from modelrepo_runtime.worker.serving_loop import ServingLoop
from modelrepo_runtime.worker.slot import Slot
from modelrepo_runtime.worker.swapping import Swapper


class SlotThreads:
    """Starts and awaits what works in one slot; `slot.leave()` ends it."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._loop = ServingLoop(slot)
        self._swapper = Keeper(slot) if slot.parts.box.on == ("cpu",) else Swapper(slot)

    def start(self) -> None:
        self._loop.start()
        self._swapper.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until both have left; False where one has not within `timeout_s`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        left = self._loop.join(timeout_s)
        return self._swapper.join(None if until is None else max(0.0, until - time.monotonic())) and left
