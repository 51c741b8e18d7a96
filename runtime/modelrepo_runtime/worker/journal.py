"""What the worker says of itself: one line an event on standard error, `time event key=value ..`."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

# What `modelrepo workers logs` shows: enough for the story of a few swaps, little enough for one reply.
KEPT_LINES = 200


class Journal:
    """Writes whole lines, from any thread, and keeps the last ones in memory.

    Facts are given by name, so that no secret can be among them by accident.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock = stream, clock
        self._lock = threading.Lock()
        self._repeated: dict[str, str] = {}
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    def say(self, event: str, **facts: object) -> None:
        """Write one line; a fact that is None is left out."""
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = [f"{name}={_written(value)}" for name, value in facts.items() if value is not None]
        line = " ".join([at, event, *told])
        with self._lock:
            self._last.append(line)
            try:
                print(line, file=self._stream or sys.stderr, flush=True)
            except (OSError, ValueError):
                pass

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, oldest first."""
        with self._lock:
            return tuple(self._last)

    def confess(self, where: str, error: Exception) -> None:
        """Write down a fault of our own with its trace; the thread that met it goes on."""
        trace = "".join(traceback.format_exception(error))
        self.say_once(f"fault {where}", "fault", where=where, error=repr(error), trace=trace)

    def say_once(self, about: str, event: str, **facts: object) -> None:
        """Write the line unless the last one about the same thing was equal."""
        told = f"{event} {facts}"
        with self._lock:
            if self._repeated.get(about) == told:
                return
            self._repeated[about] = told
        self.say(event, **facts)

    def forget(self, about: str) -> bool:
        """Let the next line about a thing be written again; True where there was one."""
        with self._lock:
            return self._repeated.pop(about, None) is not None


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text and all(letter.isprintable() and letter not in ' "=' for letter in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
