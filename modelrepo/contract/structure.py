"""Holds a model.yaml against model.schema.json, in words of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from modelrepo.contract.dialect import dialect
from modelrepo.contract.wording import describe, expected, near
from modelrepo.contract.yaml_lines import Document, Path
from modelrepo.errors import InvalidSpec

if TYPE_CHECKING:
    from jsonschema import ValidationError


@cache
def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of model.yaml, as editors take it."""
    loaded: Mapping[str, Any] = json.loads(files("modelrepo.contract").joinpath("model.schema.json").read_text("utf-8"))
    return loaded


def check_structure(document: Document, path: str, schema: Mapping[str, Any] | None = None) -> None:
    """Refuse what the schema (model.yaml's) refuses; of several faults the first in the file is told.

    Raises: InvalidSpec.
    """
    errors = [_deepest(error) for error in dialect()(schema or json_schema()).iter_errors(document.value)]
    # A key is often missing because it is misspelt: then the misspelt one is what helps.
    faults = [(error.validator == "required", fault) for error in errors for fault in _faults(error)]
    if faults:
        _, (at, message) = min(faults, key=lambda f: (f[0], document.line(f[1][0]) or 0, len(f[1][0])))
        raise InvalidSpec(message, path=path, line=document.line(at), key=".".join(map(str, at)) or None)


def _deepest(error: ValidationError) -> ValidationError:
    """Of an anyOf, take the fault inside the branch whose type fits; where none fits, the anyOf itself."""
    while error.validator == "anyOf" and error.context:
        inside = [cause for cause in error.context if cause.validator != "type" or len(cause.path) > 0]
        if not inside:
            return error
        error = max(inside, key=lambda cause: len(cause.path))
    return error


def _faults(error: ValidationError) -> list[tuple[Path, str]]:
    """Return paths and messages of one error of jsonschema; several keys may be unknown at once."""
    at, schema = tuple(error.absolute_path), error.schema
    value: Any = error.instance
    if not isinstance(schema, Mapping):
        return [(at, error.message)]
    if error.validator == "additionalProperties":
        known = list(schema.get("properties", {}))
        return [((*at, key), f"unknown key {key!r}{near(key, known)}") for key in value if key not in known]
    if error.validator == "required":
        missing = [key for key in schema["required"] if key not in value]
        what = ", ".join(map(repr, missing))
        return [(at, f"{_where(at)}the key {what} is missing; add it")]
    if "propertyNames" in error.absolute_schema_path:
        at = (*at, str(value))
        return [(at, f"{str(value)!r} is not {schema.get('x-expected', 'a name that may stand here')}")]
    wanted = schema.get("x-expected") or expected(str(error.validator), schema)
    return [(at, f"{_where(at)}{describe(value)} is not {wanted}")]


def _where(at: Path) -> str:
    return f"{'.'.join(map(str, at))}: " if at else ""
