"""What the child's process does to itself before any model code runs."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import io
import os
import signal
import socket
import sys
import threading
from typing import NoReturn

from .frames import TO_CHILD_BYTES, Channel

_PR_SET_PDEATHSIG = 1
_OUT_OF_THE_WAY = 64
"""How many descriptors below the limit ours are put, away from loops that close or write to small numbers."""


def open_channel(descriptor: int) -> Channel:
    """Take the control descriptor, move it high and close-on-exec, and keep forks of the model off it."""
    sock = socket.socket(fileno=_move_high(descriptor))
    channel = Channel(sock, receive_limit_bytes=TO_CHILD_BYTES)
    os.register_at_fork(after_in_child=lambda: _forget(channel))
    return channel


def die_with_parent(channel: Channel, parent: int) -> None:
    """End this process when the supervisor ends, also where model code never gives the interpreter back."""
    if _ask_for_death_signal():
        if os.getppid() != parent:
            os._exit(1)
        return
    threading.Thread(target=_watch_for_end, args=(channel,), name="modelrepo-parent", daemon=True).start()


class Output:
    """Standard output and error, which are the log; a copy that model code is unlikely to close."""

    def __init__(self) -> None:
        self._copy = _copy_high(2)
        self._stacks = os.fdopen(_copy_high(2), "w")
        faulthandler.enable(file=self._stacks, all_threads=True)
        if hasattr(signal, "SIGUSR2"):
            faulthandler.register(signal.SIGUSR2, file=self._stacks, all_threads=True, chain=False)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def settle(self) -> None:
        """Write out what the streams hold and open those that a job has closed: the next one may print too."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with contextlib.suppress(OSError):
            for descriptor in (1, 2):
                if not _is_open(descriptor):
                    os.dup2(self._copy, descriptor)
            if getattr(sys.stdout, "closed", True):
                sys.stdout = _text(1)
            if getattr(sys.stderr, "closed", True):
                sys.stderr = _text(2)


def leave(code: int) -> NoReturn:
    """Leave as an interpreter does, but for waiting on threads: those that a job has left behind may never end."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def end_now(code: int) -> None:
    """Leave at once, with the whole process group where it is our own."""
    if os.getpgrp() == os.getpid():
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(code)


def _move_high(descriptor: int) -> int:
    moved = _copy_high(descriptor)
    os.close(descriptor)
    return moved


def _copy_high(descriptor: int) -> int:
    """Duplicate a descriptor, close-on-exec, to a free number near the limit."""
    lowest = max(3, min(os.sysconf("SC_OPEN_MAX"), 1 << 16) - _OUT_OF_THE_WAY)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(descriptor: int) -> io.TextIOWrapper:
    return open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)


def _forget(channel: Channel) -> None:
    channel.ended = True
    with contextlib.suppress(OSError):
        channel.sock.close()


def _ask_for_death_signal() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        return int(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)) == 0
    except (ImportError, OSError, AttributeError):
        return False


def _watch_for_end(channel: Channel) -> None:
    import select

    poller = select.poll()
    poller.register(channel.fileno(), 0)
    while not any(events & (select.POLLHUP | select.POLLERR) for _, events in poller.poll()):
        pass
    end_now(1)
