"""JSON Schema as its text has it, where Python would read it otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator

# Others are checked only where packages happen to be installed, so one box would take what another refuses.
FORMATS = ("date", "email", "ipv4", "ipv6", "regex", "uuid")


@cache
def dialect() -> type[Validator]:
    """Return draft 2020-12 with patterns whose last `$` is the end: in Python a newline may still follow it."""
    from jsonschema import Draft202012Validator, ValidationError, validators  # 60 ms, which --help need not pay

    def pattern(_: Validator, pattern: str, value: Any, __: Mapping[str, Any]) -> Iterator[ValidationError]:
        if isinstance(value, str) and not re.search(_ended(pattern), value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    extended: type[Validator] = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}
    )
    return extended


@cache
def format_checker() -> FormatChecker:
    """Return what checks FORMATS and no others."""
    from jsonschema import FormatChecker

    return FormatChecker(FORMATS)


def _ended(pattern: str) -> str:
    return pattern[:-1] + r"\Z" if re.search(r"(?<!\\)(\\\\)*\$\Z", pattern) else pattern
