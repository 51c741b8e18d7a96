"""How the demo speaks: one line a step, with the time since it began."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

Tell = Callable[[str], None]


def narrator(stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Tell:
    """Return what writes a line with the seconds since now."""
    out = sys.stdout if stream is None else stream
    began = clock()

    def tell(line: str) -> None:
        out.write(f"{clock() - began:6.1f} s  {line}\n")
        out.flush()

    return tell
