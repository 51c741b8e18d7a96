"""Exceptions of model code, as messages to the supervisor."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from . import out_of_memory
from .frames import Message
from .job import RESULT_LIMIT_BYTES, Cancelled, Rejected, Retry

_MESSAGE_LIMIT = 4000
_TRACEBACK_LIMIT = 32_000


class UnusableResult(TypeError):
    """A stage returned something that is not JSON, or too much of it."""


def describe(error: BaseException) -> Message:
    """Say what kind of end an exception is, with its traceback from the model's first line on."""
    kind = "exception"
    code = type(error).__name__
    if isinstance(error, Cancelled):
        kind = "cancelled"
    elif isinstance(error, Rejected):
        kind, code = "rejected", error.code
    elif isinstance(error, Retry):
        kind = "retry"
    text, lacked = _message(error, kind), None
    if kind == "exception":
        lacked = out_of_memory.lacked(error)
    if lacked is not None:
        kind = "out_of_memory"
    if lacked == out_of_memory.ACCELERATOR:
        text = "; ".join(part for part in (text, out_of_memory.device_figures(text)) if part)
    told = {"kind": kind, "code": code[:200], "message": text, "traceback": _traceback(error)}
    return told if lacked is None else {**told, "lacked": lacked}


def print_traceback(error: BaseException) -> None:
    """Write the traceback to the log."""
    try:
        print(_traceback(error), file=sys.stderr, end="", flush=True)
    except (OSError, ValueError):
        pass


def models_traceback(error: BaseException) -> Any:
    """The traceback without the harness's own frames in front of the model's."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename) and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def checked_result(value: Any, what: str) -> Any:
    """Refuse what is no JSON of at most 256 KiB. Raises UnusableResult."""
    if value is None:
        return None
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableResult(f"{what} returned {type(value).__name__}, which is not JSON: {error}") from None
    if size > RESULT_LIMIT_BYTES:
        raise UnusableResult(f"{what} returned {size} bytes of JSON, above {RESULT_LIMIT_BYTES}; use job.output(name)")
    return value


def _message(error: BaseException, kind: str) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a model's exception may fail to print itself
        text = "(its message cannot be read)"
    if kind == "exception" and isinstance(error, SystemExit):
        text = f"the model called sys.exit({text})"
    return text[:_MESSAGE_LIMIT]


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, models_traceback(error)))
    except Exception:  # noqa: BLE001 - as above
        text = f"{type(error).__name__}: (its traceback cannot be written)\n"
    if len(text) > _TRACEBACK_LIMIT:
        half = _TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n... {len(text) - _TRACEBACK_LIMIT} characters left out ...\n{text[-half:]}"
    return text


def _is_ours(filename: str) -> bool:
    return os.path.dirname(filename) == os.path.dirname(__file__)  # noqa: PTH120
