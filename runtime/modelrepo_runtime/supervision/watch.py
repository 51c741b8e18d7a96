"""Wait for what a child says, for its end, or for somebody who wants to be heard: the socket first."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time

from modelrepo_runtime.child.frames import Channel

_POLL_S = 0.25
"""How often a process is looked at where the system has no pidfd."""
_LONGEST_S = 86_400.0
"""poll takes 24 days at most."""


class Watch:
    """The descriptors of one child, ready to be waited on."""

    def __init__(self, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        self._channel = channel
        self._process = process
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._pidfd = _open_pidfd(process.pid)
        self._poller = select.poll()
        self._poller.register(channel.fileno(), select.POLLIN)
        self._poller.register(self._wake_read, select.POLLIN)
        if self._pidfd is not None:
            self._poller.register(self._pidfd, select.POLLIN)

    def wait(self, deadline: float | None) -> bool:
        """Wait for anything to happen; False once the deadline (monotonic) is over and nothing has.

        What happened before a deadline that passed while this process was stopped still counts.
        """
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            longest = _LONGEST_S if self._pidfd is not None else _POLL_S
            events = self._poller.poll(min(longest, longest if left is None else left) * 1000)
            if any(descriptor == self._wake_read for descriptor, _ in events):
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            if events or (self._pidfd is None and self.has_ended()):
                return True
            if left is not None and left <= 0:
                return False

    def has_ended(self) -> bool:
        """True once the process has ended."""
        if self._pidfd is None:
            return self._process.poll() is not None
        return _readable(self._pidfd)

    def wait_end(self, limit_s: float | None) -> bool:
        """Wait for the process's end; None waits for ever."""
        try:
            if self._pidfd is None:
                self._process.wait(None if limit_s is None else max(0.0, limit_s))
            else:
                _readable(self._pidfd, limit_s)
        except subprocess.TimeoutExpired:
            return False
        return self.has_ended()

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")

    def close(self) -> None:
        for descriptor in (self._wake_read, self._wake_write, self._pidfd):
            if descriptor is not None:
                os.close(descriptor)


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _readable(descriptor: int, limit_s: float | None = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if limit_s is None else max(0.0, limit_s) * 1000))
