"""The number of the repository's format, which every document in it carries, and what a reader does about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelrepo.errors import Corrupt, NewerFormat

FORMAT: Final = 1

FEATURES: Final[frozenset[str]] = frozenset()
"""The names under `requires:` that this reader understands."""


def check_format(document: Mapping[str, Any], name: str) -> None:
    """Refuse a document of a newer format, or one that requires what this reader does not know.

    `name` says which document it is. One without a number is of format 1.

    Raises:
        NewerFormat, Corrupt
    """
    number = document.get("format", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise Corrupt(f"{name} says format {number!r}, which is no format number", path=name)
    if number > FORMAT:
        raise NewerFormat(f"{name} has format {number}; this modelrepo reads up to {FORMAT}: upgrade modelrepo-toolkit")
    wanted = document.get("requires") or ()
    names = wanted if isinstance(wanted, list | tuple) else (wanted,)
    unknown = sorted({str(each) for each in names} - FEATURES)
    if unknown:
        raise NewerFormat(f"{name} requires {', '.join(unknown)}, unknown to this modelrepo: upgrade modelrepo-toolkit")
