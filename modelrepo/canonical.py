"""Canonical JSON (RFC 8785), and the digests that are taken of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import rfc8785

from modelrepo.errors import InvalidInput

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def dumps(value: Json) -> bytes:
    """Return the one JSON text of `value`.

    Raises:
        InvalidInput: it holds NaN, an infinity, an integer beyond 2^53, a date or anything else that JSON lacks.
    """
    try:
        return rfc8785.dumps(_plain(value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(f"cannot be written as canonical JSON: {error}") from error


def digest(value: Json) -> str:
    """Return the sha256 of the canonical JSON of `value`, 64 hex digits."""
    return sha256(dumps(value))


def sha256(data: bytes) -> str:
    """Return the sha256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    # rfc8785 knows dict, list and tuple; a frozen dataclass may hold any Mapping or Sequence.
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_plain(item) for item in value]
    return value
