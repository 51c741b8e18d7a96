"""The size of what a slot says with each beat: bounded, since thousands of slots say it every few seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence

MOST_REPORT_BYTES = 8192
"""Of one slot's report as JSON, with names at their longest and a dozen further versions served."""
REASON_BYTES, NEXT_BYTES, PLAN_BYTES = 600, 300, 600
NOTE_BYTES, MOST_NOTES = 300, 4
SHORT_BYTES, MOST_SHORT = 160, 4
_CUT = ".."


def clip(text: str, most_bytes: int) -> str:
    """Return `text`, cut to so many bytes of JSON where it is longer; two dots then end it."""
    if len(json.dumps(text)) <= most_bytes + 2:
        return text
    left, kept = most_bytes - len(_CUT), 0
    for character in text:
        left -= len(json.dumps(character)) - 2
        if left < 0:
            break
        kept += 1
    return text[:kept] + _CUT


def clip_or_none(text: str | None, most_bytes: int) -> str | None:
    """Return `text` cut as `clip` does; None stays None."""
    return None if text is None else clip(text, most_bytes)


def clip_all(texts: Sequence[str], most_bytes: int, most: int) -> list[str]:
    """Return the first `most` texts, each cut; the last says how many are left out where some are."""
    if len(texts) <= most:
        return [clip(text, most_bytes) for text in texts]
    return [*(clip(text, most_bytes) for text in texts[: most - 1]), f"and {len(texts) - most + 1} more"]
