"""A terminal that is drawn over: its own page, keys without Return, a new drawing when its size changes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENTER = "\x1b[?1049h\x1b[?25l"
"""To the other page, with the cursor hidden; what was on the terminal comes back with `_LEAVE`."""
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def can_be_drawn_on() -> bool:
    """Say whether standard output is a terminal that knows how to be drawn over."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """Draws whole pages, and hears keys and changes of size. Only for the main thread, within `screen()`."""

    def __init__(self, keys: int | None, woken: int) -> None:
        self._keys, self._woken = keys, woken

    def draw(self, text: str) -> None:
        """Show as much of a page as there is room for; the last line of the terminal stays free."""
        columns, lines = shutil.get_terminal_size()
        shown = [line[:columns] for line in text.splitlines()[: max(1, lines - 1)]]
        sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in shown) + _CLEAR_BELOW)
        sys.stdout.flush()

    def wait(self, timeout_s: float) -> str:
        """Wait for a key, and return it; empty where the size has changed, somebody woke us, or time is over."""
        watched = [self._woken] if self._keys is None else [self._woken, self._keys]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._keys is None or self._keys not in ready:
            return ""
        key = os.read(self._keys, 1)
        if not key:  # nobody types any more; keys would be ready for ever
            self._keys = None
        return key.decode("latin-1")


@contextmanager
def screen() -> Iterator[tuple[Screen, int]]:
    """Yield a screen, and what to write a byte to to wake it; the terminal is as it was afterwards, however it ends."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    modes = termios.tcgetattr(keys) if keys is not None else None

    def resized(_signal: int, _frame: FrameType | None) -> None:
        wake_up(wake)

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        if keys is not None:
            tty.setcbreak(keys)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()
        yield Screen(keys, woken), wake
    finally:
        signal.signal(signal.SIGWINCH, before)
        if keys is not None and modes is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, modes)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        os.close(woken)
        os.close(wake)


def wake_up(wake: int) -> None:
    """Wake a screen from any thread; one that is awake already needs nothing."""
    try:
        os.write(wake, b".")
    except OSError:
        pass
