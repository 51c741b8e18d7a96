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


LEAVING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LEFT = b"\0"


def serve_until_signalled(worker: Signalled) -> None:
    """Serve until SIGTERM, SIGINT or SIGUSR1; a second one does not wait. SIGUSR2 asks for stacks.

    Only in the main thread. Raises what starting or stopping the worker raises.
    """
    failed: list[BaseException] = []
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)

    def leave(number: int) -> None:
        try:
            worker.stop(reason=signal.Signals(number).name)
        except BaseException as error:  # noqa: BLE001 - it is the main thread's to raise
            failed.append(error)
        finally:
            os.write(wake_write, _LEFT)

    # The numbers come through the pipe, written where the kernel delivers them: a handler in Python would run only once
    # the main thread, which waits below, runs again, and a signal that another thread was given does not wake it.
    before_fd = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _wake) for number in (*LEAVING, signal.SIGUSR2)}
    leaving: threading.Thread | None = None
    try:
        worker.start()
        while (told := os.read(wake_read, 1)) != _LEFT:
            if told[0] == signal.SIGUSR2:
                worker.dump_stacks()
            elif told[0] in LEAVING and leaving is None:
                leaving = threading.Thread(target=leave, args=(told[0],), name="leaving")
                leaving.start()
            elif told[0] in LEAVING:
                worker.hurry()
    finally:
        if leaving is not None:
            leaving.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(wake_read)
        os.close(wake_write)
    if failed:
        raise failed[0]


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Be there, so that the signal does not end the process."""
