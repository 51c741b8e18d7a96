"""Progress bars on standard error, for work that outlasts half a second, where a person watches."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

from modelrepo_cli.output import size, span

Progress = Callable[[str, int, int | None], None]
Item = TypeVar("Item")

QUIET_S = 0.5  # below this a bar only flickers
REDRAW_S = 0.1
RATE_OVER_S = 5.0
BAR_WIDTH = 14  # so that a terminal of 80 columns has room for the rest


class Rate:
    """How fast one phase goes: over the last few seconds, so that a pause or a change of pace shows."""

    def __init__(self) -> None:
        self._phase = ""
        self._marks: deque[tuple[float, int]] = deque()

    def count(self, phase: str, done_bytes: int, now: float) -> float | None:
        """Take note of how far a phase is; returns bytes per second, None while too little is known."""
        if phase != self._phase or (self._marks and done_bytes < self._marks[-1][1]):
            self._phase = phase
            self._marks.clear()
        if not self._marks or now - self._marks[-1][0] >= REDRAW_S:
            self._marks.append((now, done_bytes))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_OVER_S:
            self._marks.popleft()
        began, before = self._marks[0]
        return (done_bytes - before) / (now - began) if now - began >= QUIET_S else None


class Bar:
    """One line that is drawn over itself: phase, share, bytes, rate and the time that is left."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._next = clock() + QUIET_S
        self._drawn = False
        self._rate = Rate()

    def __call__(self, phase: str, done_bytes: int, total_bytes: int | None) -> None:
        now = self._clock()
        rate = self._rate.count(phase, done_bytes, now)
        if now < self._next:
            return
        self._next = now + REDRAW_S
        self._drawn = True
        line = _line(phase, done_bytes, total_bytes) + _pace(done_bytes, total_bytes, rate)
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
    filled = round(share * BAR_WIDTH)
    return (
        f"{phase}  [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}  {size(done_bytes)} of {size(total_bytes)}"
    )


def _pace(done_bytes: int, total_bytes: int | None, rate: float | None) -> str:
    if rate is None or not done_bytes:
        return ""
    told = f"  {size(int(rate))}/s"
    if not total_bytes or done_bytes >= total_bytes:
        return told
    return f"{told}  {span(math.ceil((total_bytes - done_bytes) / rate))} left" if rate >= 1 else f"{told}  stalled"


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


@contextmanager
def counting(done: str, *, as_json: bool) -> Iterator[Callable[[Sequence[Item]], Iterator[Item]]]:
    """Yield what goes through items and shows how many are done, where that takes long and a person watches."""
    shown = not as_json and sys.stderr.isatty()
    drawn = False

    def through(items: Sequence[Item]) -> Iterator[Item]:
        nonlocal drawn
        due = time.monotonic() + QUIET_S
        for number, item in enumerate(items):
            yield item
            if shown and time.monotonic() >= due:
                due, drawn = time.monotonic() + REDRAW_S, True
                print(f"\r\x1b[K{done} {number + 1:,} of {len(items):,}", end="", file=sys.stderr, flush=True)

    try:
        yield through
    finally:
        if drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
