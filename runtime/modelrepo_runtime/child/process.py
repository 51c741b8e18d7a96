"""What the child's process does to itself before any model code runs."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
import socket
import sys
import threading

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


def dump_stacks_on_signal() -> None:
    """SIGUSR2 and fatal signals write the stacks of all threads to the log, from C."""
    stream = os.fdopen(_copy_high(2), "w")
    faulthandler.enable(file=stream, all_threads=True)
    if hasattr(signal, "SIGUSR2"):
        faulthandler.register(signal.SIGUSR2, file=stream, all_threads=True, chain=False)


def line_buffer_output() -> None:
    """Let every printed line reach the log at once, so that a crash loses none."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def flush_output() -> None:
    """Write out what the streams still hold; a model may have closed or replaced them."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.flush()


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
