"""Kinds of values that several commands take: lengths of time, assignments, JSON documents."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelrepo.errors import InvalidInput, InvalidJobInput

if TYPE_CHECKING:
    _Number = click.ParamType[float]
else:  # not generic before click 8.3
    _Number = click.ParamType

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?")


class Duration(_Number):
    """A length of time such as 500ms, 30s, 5m, 2h or 7d, read into seconds; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` in seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a length of time; write it like 30s, 5m or 2h", param, ctx)
        return float(match[1]) * _UNITS_S[match[2] or "s"]


class Share(_Number):
    """A share such as 2% or 0.02, read into 0..1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` as a fraction."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not a share; write it like 2% or 0.02", param, ctx)
        return share


class Rate(_Number):
    """A rate such as 50MB/s or 8MiB/s, read into bytes per second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` in bytes per second."""
        from modelrepo.contract.quantities import parse_size

        if isinstance(value, int | float):
            return float(value)
        try:
            rate = parse_size(str(value).strip().removesuffix("/s").strip())
        except ValueError:
            rate = 0
        if rate <= 0:
            self.fail(f"{value!r} is not a rate; write it like 50MB/s or 8MiB/s", param, ctx)
        return float(rate)


DURATION = Duration()
RATE = Rate()
SHARE = Share()


def assignments(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Split `key=value` arguments.

    Raises:
        InvalidInput: one has no `=` or no key, or a key comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"cannot read {option} {pair!r}: it has no `key=value` form; write {option} name=value")
        if key in found:
            raise InvalidInput(f"cannot read {option} {pair!r}: {key!r} is given twice; leave one out")
        found[key] = value
    return found


def scalar(text: str) -> Any:
    """Read `text` as JSON where it is JSON, else as the string that it is."""
    try:
        return strict_json(text)
    except ValueError:
        return text


def strict_json(text: str) -> Any:
    """Read JSON as RFC 8259 has it: without NaN and infinities, without a key that comes twice."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def document(source: str, option: str) -> dict[str, Any]:
    """Read a JSON object from `@file`, or from standard input for `-`.

    Raises:
        InvalidJobInput: it cannot be read, is no JSON, or no object.
    """
    text = sys.stdin.read() if source == "-" else read_text(_path(source, option), option)
    return json_object(text, option, "standard input" if source == "-" else source[1:])


def lines(source: str, option: str) -> Iterator[str]:
    """Yield the lines of `@file`, or of standard input for `-` as they come."""
    if source == "-":
        yield from sys.stdin
    else:
        yield from read_text(_path(source, option), option).splitlines()


def json_object(text: str, option: str, where: str) -> dict[str, Any]:
    """Read a JSON object; `option` and `where` are for the error."""
    try:
        value = strict_json(text)
    except json.JSONDecodeError as error:
        raise InvalidJobInput(
            f"cannot read {option} from {where}: no JSON at line {error.lineno} column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:
        raise InvalidJobInput(f"cannot read {option} from {where}: {error}") from None
    if not isinstance(value, dict):
        raise InvalidJobInput(f"cannot read {option} from {where}: it holds {_kind(value)}; write a JSON object")
    return value


def read_text(path: Path, option: str) -> str:
    """Return a text file's content, or say plainly what stands in the way."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot read {option} file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"cannot read {option} file {path}: it is no UTF-8 text") from None


def _path(source: str, option: str) -> Path:
    if not source.startswith("@"):
        raise InvalidInput(f"cannot read {option} {source!r}: it takes @FILE, or - for standard input")
    return Path(source[1:])


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"key {twice!r} comes twice")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else f"a {type(value).__name__}"
