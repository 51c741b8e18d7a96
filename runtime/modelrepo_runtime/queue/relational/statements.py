"""Named statements in `sql/*.sql`, each under a line `-- name: <name>`: portable here, or a database's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def statements_of(package: str) -> Mapping[str, str]:
    """Return every statement by name as a database's package has them: its own first, else the portable one.

    Raises: ValueError where a name stands twice in one package.
    """
    return {**_read(__package__), **_read(package)}


def _read(package: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in sorted((files(package) / "sql").iterdir(), key=lambda entry: entry.name):
        if not source.name.endswith(".sql"):
            continue
        for part in re.split(r"^-- name: ", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            name, _, body = part.partition("\n")
            if name.strip() in found:
                raise ValueError(f"two statements of {package} are named {name.strip()}")
            found[name.strip()] = body.strip().rstrip(";")
    return found
