"""One JSON object a line: when, how grave, what, and of which request, job and attempt."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

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


def write_json_lines(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all that the gateway logs to a stream, standard error unless said, as lines of JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("modelrepo_runtime", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True
