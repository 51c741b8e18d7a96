"""What a command prints: text for people or one JSON document for machines, never both on standard output."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import re
import select
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HEX_DIGEST = re.compile("[0-9a-f]{64}")


class OutputClosedError(Exception):
    """The reader of standard output went away; there is nobody left to tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """Where a command's answer goes."""

    as_json: bool

    def show(self, document: Any, text: str) -> None:
        """Print `document` as JSON where `--json` was given, else `text`."""
        write(json.dumps(plain(document), indent=2, ensure_ascii=False) if self.as_json else text)

    def line(self, document: Any, text: str) -> None:
        """Print one entry of a stream: a JSON line or a line of text."""
        write(json.dumps(plain(document), ensure_ascii=False) if self.as_json else text)

    def note(self, text: str) -> None:
        """Tell a person something that is not the answer, on standard error."""
        if not self.as_json:
            print(text, file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Write `text` and a newline to standard output at once.

    Raises:
        OutputClosedError: nobody reads it any more.
    """
    if not text:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error


def reader_is_gone() -> bool:
    """Say whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def plain(value: Any) -> Any:
    """Turn what the library returns into what JSON knows."""
    if value is None or isinstance(value, bool | int | float) or type(value) is str:
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        # Inside the library a version's digest is bare hex digits; whatever leaves it says which digest it is.
        if isinstance(fields.get("digest"), str) and _HEX_DIGEST.fullmatch(fields["digest"]):
            fields["digest"] = "sha256:" + fields["digest"]
        return fields
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay `rows` out under `headings` in left-aligned columns; the last column is never padded."""
    lines = [list(headings), *[["" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def facts(pairs: Mapping[str, object]) -> str:
    """Lay names and values out in two columns, leaving out what has no value."""
    shown = {name: value for name, value in pairs.items() if value is not None and value != ""}
    width = max((len(name) for name in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown.items())


def counted(number: int, what: str) -> str:
    """Write a number of things: 1 object, 2 objects."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """Write a number of bytes the way people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def span(seconds: float) -> str:
    """Write a length of time the way people read it: 0.4 s, 12 s, 3 min 5 s, 2 h, 3 d 4 h."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // smaller_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
