"""From `--adapter` to what a submission says of an adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urldefrag

from modelrepo.errors import InvalidInput

SUBMITTED = "FILE, file:ID or ref:NAME@VERSION, with =WEIGHT behind it; or URL#sha256=HEX&weight=WEIGHT; repeat it."
LOCAL = "A file of weights, with =WEIGHT behind it where it is not 1; repeat it."


def read(given: Sequence[str]) -> list[dict[str, Any]]:
    """Return each as a submission has it; files of this box are `Path`s. Raises: InvalidInput."""
    return [_one(text) for text in given]


def read_local(given: Sequence[str]) -> list[tuple[Path, float]]:
    """Return files of this box and their weights. Raises: InvalidInput."""
    return [_file(text) for text in given]


def _one(text: str) -> dict[str, Any]:
    if text.startswith(("https://", "http://")):
        return _url(text)
    for source in ("ref", "file"):
        if text.startswith(f"{source}:"):
            named, weight = _weighted(text.removeprefix(f"{source}:"))
            return {source: named, "weight": weight}
    path, weight = _file(text)
    return {"file": path, "weight": weight}


def _url(text: str) -> dict[str, Any]:
    url, fragment = urldefrag(text)
    told = dict(parse_qsl(fragment))
    if unknown := sorted(told.keys() - {"sha256", "weight"}):
        raise InvalidInput(f"cannot read --adapter {text}: behind # come sha256 and weight, not {unknown[0]!r}")
    if "sha256" not in told:
        raise InvalidInput(f"cannot read --adapter {text}: say which bytes are meant with #sha256=HEX behind the URL")
    return {"url": url, "sha256": told["sha256"], "weight": _number(told.get("weight", "1"), text)}


def _file(text: str) -> tuple[Path, float]:
    whole = Path(text)
    if whole.is_file():
        return whole, 1.0
    name, weight = _weighted(text)
    path = Path(name)
    if not path.is_file():
        raise InvalidInput(f"cannot read --adapter {text}: {name} is {'a folder' if path.is_dir() else 'not there'}")
    return path, weight


def _weighted(text: str) -> tuple[str, float]:
    name, equals, weight = text.rpartition("=")
    return (name, _number(weight, text)) if equals else (text, 1.0)


def _number(weight: str, text: str) -> float:
    try:
        found = float(weight)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"cannot read --adapter {text}: {weight!r} is no weight; give a number such as 0.8")
    return found
