"""One JSON object a line: when, how grave, what, and of which request, job and attempt."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

GATHERED_S = 0.02
"""A line is written so much later: what a kill loses."""
END_S = 2.0
ABOUT: ContextVar[MutableMapping[str, Any] | None] = ContextVar("gateway_about", default=None)
"""What is known of the request under way; each line that it writes carries it."""


def note(**facts: Any) -> None:
    """Add facts of the request under way, such as `job` and `attempt`, to every line that it writes from here on."""
    about = ABOUT.get()
    if about is not None:
        about.update({name: value for name, value in facts.items() if value is not None})


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name.removeprefix("modelrepo_runtime."),
            "message": record.getMessage(),
            **(ABOUT.get() or {}),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, ensure_ascii=False, default=str)


class GatheredLines(logging.Handler):
    """Writes to a stream from a thread of its own, what came in a moment at once.

    A write gives up Python's lock: by each of its own the event loop would wait for its turn among all other threads.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._news, self._stopped = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="gateway-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; it is made a line here, where what is known of its request is at hand."""
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)
        if not self._news.is_set():
            self._news.set()

    def flush(self) -> None:
        """Write what was taken so far."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                with suppress(OSError, ValueError):  # the stream is closed, or its reader gone
                    self._stream.write("\n".join(lines) + "\n")
                    self._stream.flush()

    def close(self) -> None:
        """Write the rest, and end the thread; the process's end does so too."""
        self._stopped.set()
        self._news.set()
        if self._thread is not threading.current_thread():
            self._thread.join(END_S)
        self.flush()
        super().close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._news.wait()
            self._stopped.wait(GATHERED_S)
            self._news.clear()
            self.flush()


def write_json_lines(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all that the gateway logs to a stream, standard error unless said, as lines of JSON."""
    handler = GatheredLines(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("modelrepo_runtime", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True
