"""From `-i name=value`, `-i name=@file` and `--input` to a job's inputs, read by the model's own schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelrepo.errors import InvalidInput, InvalidJobInput
from modelrepo_cli import parameters

Schemas = Mapping[str, Mapping[str, Any]]


def read(pairs: Sequence[str], source: str | None, schemas: Schemas) -> dict[str, Any]:
    """Return the inputs as JSON values and, for file inputs, `Path`s. Single `-i` outrank the `--input` document.

    Raises:
        InvalidInput: something cannot be read; names what.
    """
    return _merged(parameters.document(source, "--input") if source else {}, pairs, schemas)


def read_line(line: str, pairs: Sequence[str], schemas: Schemas) -> dict[str, Any]:
    """Return the inputs of one line of JSON, as `read` does."""
    return _merged(parameters.json_object(line, "--input", f"the line {line.strip()[:60]!r}"), pairs, schemas)


def _merged(inputs: dict[str, Any], pairs: Sequence[str], schemas: Schemas) -> dict[str, Any]:
    for name, text in parameters.assignments(pairs, "-i").items():
        inputs[name] = _value(name, text, schemas.get(name))
    for name, value in inputs.items():
        if isinstance(value, str) and value.startswith("@") and (schemas.get(name) or {}).get("format") == "file":
            inputs[name] = _file(name, value[1:])
    return inputs


def _value(name: str, text: str, schema: Mapping[str, Any] | None) -> Any:
    types = _types(schema)
    if not text.startswith("@"):
        return text if types == {"string"} else _typed(name, text, types)
    if schema is not None and schema.get("format") == "file":
        return _file(name, text[1:])
    content = parameters.read_text(Path(text[1:]), f"-i {name}")
    return content if types == {"string"} else _typed(name, content, types)


def _typed(name: str, text: str, types: set[str]) -> Any:
    try:
        return parameters.strict_json(text)
    except ValueError:
        if types and "string" not in types:
            expected = " or ".join(sorted(types))
            message = f"cannot read -i {name}={text!r}: it is no JSON, and the model wants {expected}"
            raise InvalidJobInput(message, pointer=f"/{name}") from None
        return text


def _types(schema: Mapping[str, Any] | None) -> set[str]:
    declared = (schema or {}).get("type", ())
    return {declared} if isinstance(declared, str) else set(declared)


def _file(name: str, path: str) -> Path:
    found = Path(path)
    if not found.is_file():
        raise InvalidInput(f"cannot read -i {name}: {path} is {'a folder' if found.is_dir() else 'not there'}")
    return found
