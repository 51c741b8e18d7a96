"""Logs that several ranks write: whole lines, each with its rank before it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .logs import BoundedLog, OpenLog

_LINE_LIMIT_BYTES = 1 << 16
"""A line that is longer is cut, so that a rank which prints none keeps no memory."""


class RankLogs:
    """Opens a group's logs; ranks that open the same file share it. `echo` is a descriptor that gets all lines too."""

    def __init__(self, echo: int | None = None) -> None:
        self._echo = echo
        self._lock = threading.Lock()
        self._open: dict[Path, _SharedLog] = {}

    def of(self, rank: int) -> OpenLog:
        """Return what opens logs for one rank."""
        return partial(self._part, rank)

    @contextlib.contextmanager
    def held(self, path: Path) -> Iterator[None]:
        """Keep a log open meanwhile, whichever rank is first to close its part of it."""
        self._take(path)
        try:
            yield
        finally:
            self._give_back(path)

    def _part(self, rank: int, path: Path) -> RankLog:
        return RankLog(self, self._take(path), rank)

    def _take(self, path: Path) -> _SharedLog:
        with self._lock:
            shared = self._open.setdefault(path, _SharedLog(path, self._echo))
            shared.holders += 1
            return shared

    def _give_back(self, path: Path) -> None:
        with self._lock:
            shared = self._open[path]
            shared.holders -= 1
            if shared.holders == 0:
                del self._open[path]
                shared.log.close()


class RankLog:
    """One rank's part of a log. One thread writes it."""

    def __init__(self, logs: RankLogs, shared: _SharedLog, rank: int) -> None:
        self.path = shared.log.path
        self._logs, self._shared = logs, shared
        self._before = b"[rank %d] " % rank
        self._begun = b""
        self._closed = False

    def write(self, data: bytes | memoryview) -> None:
        """Append what makes whole lines; keep the rest for the next time."""
        text = self._begun + bytes(data)
        end = text.rfind(b"\n") + 1
        if len(text) - end > _LINE_LIMIT_BYTES:
            text += b"\n"
            end = len(text)
        self._begun = text[end:]
        self._lines(text[:end])

    def recent(self, size_bytes: int = 16_384) -> str:
        """The newest output of all ranks."""
        return self._shared.recent(size_bytes)

    def close(self) -> None:
        """End a line that was begun. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._begun:
            self._lines(self._begun + b"\n")
        self._logs._give_back(self.path)

    def _lines(self, text: bytes) -> None:
        if text:
            self._shared.write(self._before + text[:-1].replace(b"\n", b"\n" + self._before) + b"\n")


class _SharedLog:
    """The file, and how many hold it open."""

    def __init__(self, path: Path, echo: int | None) -> None:
        self.log = BoundedLog(path)
        self.holders = 0
        self._echo = echo
        self._writing = threading.Lock()

    def write(self, text: bytes) -> None:
        with self._writing:
            self.log.write(text)
            if self._echo is not None:
                _write_all(self._echo, text)

    def recent(self, size_bytes: int) -> str:
        with self._writing:
            return self.log.recent(size_bytes)


def _write_all(descriptor: int, text: bytes) -> None:
    left = memoryview(text)
    with contextlib.suppress(OSError):
        while left:
            left = left[os.write(descriptor, left) :]
