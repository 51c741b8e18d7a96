"""Sizes and durations as people write them: `20MiB`, `20min`."""

from __future__ import annotations

import re

SIZE_UNITS: dict[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LARGEST_BYTES = 2**53  # what JSON holds exactly
_LONGEST_S = 365 * DURATION_UNITS_S["d"]
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def parse_size(value: str | int) -> int:
    """Return bytes. Raises: ValueError."""
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise ValueError(f"{value!r} is no size; write it like 20MiB")
    if isinstance(value, int):
        return _bounded(value, value)
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2] not in SIZE_UNITS:
        raise ValueError(f"{value!r} is no size; write it like 20MiB (units: {', '.join(SIZE_UNITS)})")
    return _bounded(float(match[1]) * SIZE_UNITS[match[2]], value)


def parse_duration(value: str) -> float:
    """Return seconds. Raises: ValueError."""
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2] not in DURATION_UNITS_S or float(match[1]) == 0:
        raise ValueError(f"{value!r} is no duration; write it like 20min (units: {', '.join(DURATION_UNITS_S)})")
    seconds = float(match[1]) * DURATION_UNITS_S[match[2]]
    if seconds > _LONGEST_S:
        raise ValueError(f"{value!r} is longer than 365 days")
    return seconds


def format_size(size_bytes: int) -> str:
    """Write a size for people: `1.5 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes >= SIZE_UNITS[unit]:
            return f"{size_bytes / SIZE_UNITS[unit]:.4g} {unit}"
    return f"{size_bytes} B"


def _bounded(size_bytes: float, written: str | int) -> int:
    if size_bytes > _LARGEST_BYTES:
        raise ValueError(f"{written!r} is beyond 2^53 bytes")
    return round(size_bytes)
