"""Two file locks that let the processes of one box write in turn.

Take `next`, take `main`, release `next`: whoever waits for `main` is alone in waiting, so nobody is overtaken for ever.
SQLite's own busy handler sleeps and retries, which starves a process for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turnstile:
    """The right to write to the database at `path`; not for two threads at once."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._next = os.open(f"{path}.next", flags, 0o644)
        self._main = os.open(f"{path}.main", flags, 0o644)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right to write."""
        import fcntl

        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._main, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._main, fcntl.LOCK_UN)

    def enter_at_once(self) -> bool:
        """Take the right to write where nobody has it or waits for it; `leave` gives it back."""
        import fcntl

        try:
            fcntl.flock(self._next, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._main, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        return True

    def leave(self) -> None:
        """Give back what `enter_at_once` took."""
        import fcntl

        fcntl.flock(self._main, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of both locks; closing twice is legal."""
        for name in ("_next", "_main"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)
