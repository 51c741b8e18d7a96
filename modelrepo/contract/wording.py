"""The words in which a value that a schema refuses is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from modelrepo.names import near_names

_SHOWN = 16  # names in one error
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def describe(value: object) -> str:
    """Show a value shortly, as JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def is_text(value: str) -> bool:
    """Tell whether it can be written as UTF-8: half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def near(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?`, or the names that there are."""
    names = list(known)
    close = near_names(name, names)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "")
    return f"; known: {shown}" if names else ""


def expected(validator: str, schema: Mapping[str, Any]) -> str:
    """Say what a keyword of JSON Schema asks for: what stands behind `... is not`."""
    rule = schema.get(validator)
    if validator == "type":
        kinds = rule if isinstance(rule, list) else [str(rule)]
        return " or ".join(_TYPES[kind] for kind in kinds)
    if validator == "enum" and isinstance(rule, list):
        return "one of " + ", ".join(map(str, rule))
    words = {
        "const": f"{rule}, the contract that this modelrepo reads",
        "minimum": f"at least {rule}",
        "exclusiveMinimum": f"above {rule}",
        "maximum": f"at most {rule}",
        "exclusiveMaximum": f"below {rule}",
        "multipleOf": f"a multiple of {rule}",
        "minItems": f"a list of at least {rule}",
        "maxItems": f"a list of at most {rule}",
        "minLength": f"text of at least {rule} characters",
        "maxLength": f"text of at most {rule} characters",
        "pattern": f"text that matches {rule}",
        "format": f"text in the format {rule}",
        "minProperties": f"a mapping of at least {rule} keys",
        "maxProperties": f"a mapping of at most {rule} keys",
        "uniqueItems": "a list without repetition",
    }
    return words.get(validator, f"what {validator} allows ({describe(rule)})")
