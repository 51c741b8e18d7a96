"""The SQL of the embedded queue: named statements in `sql/*.sql`, each under a line `-- name: <name>`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def _statements() -> dict[str, str]:
    found: dict[str, str] = {}
    for source in sorted((files(__package__) / "sql").iterdir(), key=lambda entry: entry.name):
        if not source.name.endswith(".sql"):
            continue
        for part in re.split(r"^-- name: ", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            if name.strip() in found:
                raise ValueError(f"two statements are named {name.strip()}")
            found[name.strip()] = body.strip().rstrip(";")
    return found


def sql(name: str) -> str:
    """Return a statement by its name. Raises: KeyError."""
    return _statements()[name]


def all_statements() -> dict[str, str]:
    """Return every statement by name."""
    return dict(_statements())
