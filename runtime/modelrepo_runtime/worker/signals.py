"""Run a worker until a signal ends it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Protocol


class Signalled(Protocol):
    """What signals ask of a worker."""

    def start(self) -> None: ...

    def stop(self, *, reason: str) -> None: ...

    def hurry(self) -> None: ...

    def dump_stacks(self) -> None: ...


def serve_until_signalled(worker: Signalled) -> None:
    """Serve until SIGTERM, SIGINT or SIGUSR1; a second one does not wait. SIGUSR2 asks for stacks.

    Only in the main thread. Raises what starting or stopping the worker raises.
    """
    asked: list[int] = []
    failed: list[BaseException] = []
    wake_read, wake_write = os.pipe()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        os.write(wake_write, b"x")

    def leave(number: int) -> None:
        try:
            worker.stop(reason=signal.Signals(number).name)
        except BaseException as error:  # noqa: BLE001 - it is the main thread's to raise
            failed.append(error)
        finally:
            os.write(wake_write, b"x")

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        worker.start()
        leaving: threading.Thread | None = None
        while os.read(wake_read, 1):
            number = asked.pop(0) if asked else 0
            if number == signal.SIGUSR2:
                worker.dump_stacks()
            elif number and leaving is None:
                leaving = threading.Thread(target=leave, args=(number,), name="leaving")
                leaving.start()
            elif number:
                worker.hurry()
            elif leaving is not None:
                leaving.join()
                break
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake_read)
        os.close(wake_write)
    if failed:
        raise failed[0]
