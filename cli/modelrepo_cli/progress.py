"""Progress bars on standard error, for work that outlasts half a second, where a person watches."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from modelrepo_cli.output import size

Progress = Callable[[str, int, int | None], None]

QUIET_S = 0.5  # below this a bar only flickers
REDRAW_S = 0.1


class Bar:
    """One line that is drawn over itself: phase, share, bytes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._next = clock() + QUIET_S
        self._drawn = False

    def __call__(self, phase: str, done_bytes: int, total_bytes: int | None) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + REDRAW_S
        self._drawn = True
        line = _line(phase, done_bytes, total_bytes)
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _line(phase: str, done_bytes: int, total_bytes: int | None) -> str:
    if not total_bytes:
        return f"{phase}  {size(done_bytes)}" if done_bytes else phase
    share = min(1.0, done_bytes / total_bytes)
    filled = round(share * 24)
    return f"{phase}  [{'#' * filled}{'.' * (24 - filled)}] {share:4.0%}  {size(done_bytes)} of {size(total_bytes)}"


@contextmanager
def bar(*, as_json: bool) -> Iterator[Progress | None]:
    """Yield what draws progress, or None where standard error is no terminal or a machine reads."""
    if as_json or not sys.stderr.isatty():
        yield None
        return
    drawn = Bar(sys.stderr)
    try:
        yield drawn
    finally:
        drawn.clear()
