"""Logs that cannot grow: a head, and a tail once the head is full."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

LOG_LIMIT_BYTES = 10 << 20
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
"""Linux's number; Python 3.9 has no name for it."""


class Log(Protocol):
    """What a child's output is read into."""

    path: Path

    def write(self, data: bytes | memoryview) -> None: ...

    def recent(self, size_bytes: int = ...) -> str: ...

    def close(self) -> None: ...


OpenLog = Callable[[Path], Log]


class BoundedLog:
    """One file of at most `limit_bytes` (and a line that says what is left out), made with the first output.

    Never raises for a full disk. Most jobs print nothing, and a file for each would make the queue's fsyncs slower.
    """

    def __init__(self, path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.path = path
        self.written_bytes = 0
        self._half = limit_bytes // 2
        self._in_head = 0
        self._tail: bytearray | None = None
        self._tail_bytes = 0
        self._file: BinaryIO | None = None
        self._closed = False

    def write(self, data: bytes | memoryview) -> None:
        """Append; what no longer fits the head goes to a ring that keeps the newest."""
        self.written_bytes += len(data)
        room = self._half - self._in_head
        if room > 0:
            self._to_file(data[:room])
            self._in_head += min(room, len(data))
            data = data[room:]
        if data:
            self._to_ring(data)

    def recent(self, size_bytes: int = 16_384) -> str:
        """The newest output, from the start of a line."""
        tail = self._unrolled()[-size_bytes:]
        if len(tail) < size_bytes and self._in_head:
            with contextlib.suppress(OSError), self.path.open("rb") as file:
                file.seek(max(0, self._in_head - (size_bytes - len(tail))))
                tail = tail if self._closed else file.read(self._in_head) + tail
        text = tail.decode("utf-8", errors="replace")
        if self.written_bytes > size_bytes and "\n" in text:
            text = text.split("\n", 1)[1]
        return text

    def close(self) -> None:
        """Write the tail behind the head. A second call does nothing."""
        if self._closed:
            return
        tail = self._unrolled()
        if tail:
            left_out = self.written_bytes - self._in_head - len(tail)
            if left_out > 0:
                self._to_file(b"\n... %d bytes left out ...\n" % left_out)
            self._to_file(tail)
        self._closed = True
        if self._file is not None:
            self._file.close()

    def _to_file(self, data: bytes | memoryview) -> None:
        if self._closed:
            return
        with contextlib.suppress(OSError):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb", buffering=0)
            self._file.write(data)

    def _to_ring(self, data: bytes | memoryview) -> None:
        if self._tail is None:
            self._tail = bytearray(self._half)
        size = len(self._tail)
        skipped = max(0, len(data) - size)
        start = (self._tail_bytes + skipped) % size
        self._tail_bytes += len(data)
        kept = data[skipped:]
        first = min(len(kept), size - start)
        self._tail[start : start + first] = kept[:first]
        self._tail[: len(kept) - first] = kept[first:]

    def _unrolled(self) -> bytes:
        if self._tail is None:
            return b""
        if self._tail_bytes <= len(self._tail):
            return bytes(self._tail[: self._tail_bytes])
        at = self._tail_bytes % len(self._tail)
        return bytes(self._tail[at:] + self._tail[:at])


class LogDrain:
    """Reads a child's output as fast as it comes, into the log that is current.

    The end of the pipe says nothing about the child: it may close its output, or leave it open in what it forked.
    """

    def __init__(self, name: str, log: Log) -> None:
        self._start_log: Log = log
        self._current: Log = log
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._seen_bytes = 0
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            fcntl.fcntl(self.write_end, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._wake_read, self._wake_write = os.pipe()
        self._buffer = bytearray(_PIPE_BYTES)
        self._closed = False
        self._thread = threading.Thread(target=self._drain, name=f"log {name}", daemon=True)
        self._thread.start()

    def child_has_it(self) -> None:
        """Close our copy of the writing end; call once the child was spawned."""
        os.close(self.write_end)

    def switch(self, log: Log | None) -> None:
        """Give what was printed so far to the current log, what comes to `log` (None: the start's)."""
        with self._lock:
            self._read_some()
            self._current = log or self._start_log

    def recent(self) -> str:
        """The newest output of the current log."""
        with self._lock:
            self._read_some()
            return self._current.recent()

    def wait_for_output(self, limit_s: float, quiet_s: float = 0.1) -> None:
        """Wait until something was printed and then nothing for `quiet_s`, at most `limit_s`."""
        end = time.monotonic() + limit_s
        with self._moved:
            seen = self._seen_bytes
            if not self._moved.wait_for(lambda: self._seen_bytes != seen, limit_s):
                return
            while time.monotonic() < end:
                seen = self._seen_bytes
                if not self._moved.wait_for(lambda: self._seen_bytes != seen, quiet_s):  # noqa: B023
                    return

    def close(self) -> None:
        """Take what the pipe holds, end the thread, close the log. Other holders of the pipe write into nothing."""
        with self._lock:
            if self._closed:
                return
            self._read_some()
            self._closed = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        for descriptor in (self._read_end, self._wake_read, self._wake_write):
            os.close(descriptor)
        self._start_log.close()

    def _drain(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        poller.register(self._read_end, select.POLLIN)
        while True:
            events = dict(poller.poll())
            with self._moved:
                if self._closed:
                    return
                if self._read_some():
                    self._moved.notify_all()
                elif events.get(self._read_end, 0) & (select.POLLHUP | select.POLLERR):
                    poller.unregister(self._read_end)

    def _read_some(self) -> bool:
        """Read at most one pipe's worth; more may come for ever."""
        if self._closed:
            return False
        try:
            count = os.readv(self._read_end, [self._buffer])
        except (BlockingIOError, InterruptedError):
            return False
        if count:
            self._seen_bytes += count
            self._current.write(memoryview(self._buffer)[:count])
        return count > 0
