"""Holds a job's inputs against the model's declarations."""

from __future__ import annotations

import math
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelrepo.contract.dialect import dialect, format_checker
from modelrepo.contract.quantities import format_size, parse_size
from modelrepo.contract.size_expression import evaluate
from modelrepo.contract.spec import ModelSpec
from modelrepo.contract.wording import describe, expected, is_text, near
from modelrepo.errors import InvalidJobInput

_MOST_DEPTH = 64  # as in model.yaml
Declaration = Mapping[str, Any]


def check(spec: ModelSpec, values: object) -> dict[str, Any]:
    """Return the inputs with defaults filled in.

    An input of `format: file` is `{"file": id}`, an https URL, or a local path (any PathLike), which stays as it is.
    Raises: InvalidJobInput, with a JSON pointer.
    """
    if not isinstance(values, Mapping):
        raise InvalidJobInput(f"inputs of {spec.name}: {describe(values)} is not a mapping of names to values")
    checked = {str(name): value for name, value in values.items()}
    if spec.inputs is None:
        for name, value in checked.items():
            _check_json(spec, value, (name,))
        return checked
    for name in checked:
        if name not in spec.inputs:
            raise _refused(spec, (name,), f"unknown input{near(name, spec.inputs)}")
    for name, declared in spec.inputs.items():
        if name in checked:
            _check_value(spec, name, declared, checked[name])
        elif "default" in declared:
            checked[name] = declared["default"]
        elif declared.get("required") is True:
            raise _refused(spec, (name,), "is missing and has no default; give it")
        if declared.get("type") == "integer" and isinstance(value := checked.get(name), float):
            checked[name] = int(value)
    return checked


def file_inputs(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of inputs that are files."""
    return tuple(name for name, declared in (spec.inputs or {}).items() if declared.get("format") == "file")


def file_outputs(spec: ModelSpec) -> dict[str, str | None]:
    """Return the outputs that are files, with their declared content types."""
    return {name: out.get("contentType") for name, out in spec.outputs.items() if out.get("format") == "file"}


def check_file(spec: ModelSpec, name: str, *, size_bytes: int, content_type: str | None) -> None:
    """Hold a file against `maxBytes` and `contentTypes`; a type that is not known passes. Raises: InvalidJobInput."""
    declared = (spec.inputs or {}).get(name, {})
    most = declared.get("maxBytes")
    if most is not None and size_bytes > parse_size(most):
        raise _refused(spec, (name,), f"the file has {format_size(size_bytes)}, the model takes at most {most}")
    types = declared.get("contentTypes")
    if types and content_type is not None and content_type not in types:
        raise _refused(spec, (name,), f"the file is {content_type}, the model takes {', '.join(types)}")


def size_class(spec: ModelSpec, values: Mapping[str, Any]) -> str | None:
    """Return the class under which a job's times and memory are learnt: the value of `size:` to two digits.

    None where there is none, or the inputs give it no value: no job is refused for what is only learnt from.
    """
    if spec.size is None:
        return None
    try:
        value = evaluate(spec.size, values)
    except ValueError:
        return None
    return f"{float(f'{value:.1e}'):g}"


def check_declaration(declared: Declaration) -> None:
    """Check one entry of `inputs:`, whose keys the schema of model.yaml has passed. Raises: ValueError."""
    from jsonschema import SchemaError

    is_file = declared.get("format") == "file"
    if not is_file:
        for key in ("contentTypes", "maxBytes"):
            if key in declared:
                raise ValueError(f"{key} needs format: file beside it")
    elif "default" in declared:
        raise ValueError("a file has no default")
    if "maxBytes" in declared:
        parse_size(declared["maxBytes"])
    for key, value in declared.items():
        if key not in ("default", "examples", "enum", "const"):
            _refuse_nested_files(value)
    try:
        dialect().check_schema(_plain(declared))
    except SchemaError as error:
        raise ValueError(f"{'.'.join(map(str, error.path))}: {error.message}".removeprefix(": ")) from None
    if "default" in declared:
        problem = _problem(declared, declared["default"])
        if problem:
            raise ValueError(f"the default breaks its own schema: {problem[1]}")


def _check_value(spec: ModelSpec, name: str, declared: Declaration, value: Any) -> None:
    if declared.get("format") == "file":
        _check_file_value(spec, name, value)
        return
    _check_json(spec, value, (name,))
    problem = _problem(declared, value)
    if problem:
        raise _refused(spec, (name, *problem[0]), problem[1])


def _check_file_value(spec: ModelSpec, name: str, value: Any) -> None:
    if isinstance(value, os.PathLike):
        path = Path(value)
        if not path.is_file():
            raise _refused(spec, (name,), f"no file at {path}")
        content_type, _ = mimetypes.guess_type(path.name)
        check_file(spec, name, size_bytes=path.stat().st_size, content_type=content_type)
    elif isinstance(value, Mapping):
        if not isinstance(value.get("file"), str):
            raise _refused(spec, (name,), f'{describe(value)} is not {{"file": id}}')
    elif not (isinstance(value, str) and value.startswith("https://")):
        ways = f'a path (-i {name}=@FILE on the command line), {{"file": id}} or an https URL'
        raise _refused(spec, (name,), f"{describe(value)} is not a file: give {ways}")


def _problem(declared: Declaration, value: Any) -> tuple[tuple[str | int, ...], str] | None:
    from jsonschema.exceptions import best_match

    validator = dialect()(_plain(declared), format_checker=format_checker())
    error = best_match(validator.iter_errors(value))
    if error is None:
        return None
    at, keyword = tuple(error.absolute_path), str(error.validator)
    if keyword == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return at, f"the key {missing[0]!r} is missing"
    if keyword == "additionalProperties" and isinstance(error.schema, Mapping):
        return at, f"holds keys that are not declared{near('', error.schema.get('properties', {}))}"
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    return at, f"{describe(error.instance)} is not {expected(keyword, schema)}"


def _plain(declared: Declaration) -> dict[str, Any]:
    """Return the declaration as pure JSON Schema."""
    ours = {"contentTypes", "maxBytes"} | ({"required"} if isinstance(declared.get("required"), bool) else set())
    if declared.get("format") == "file":
        ours |= {"type", "format"}
    return {key: value for key, value in declared.items() if key not in ours}


def _refuse_nested_files(schema: object) -> None:
    if isinstance(schema, Mapping):
        if schema.get("format") == "file" or isinstance(schema.get("required"), bool):
            raise ValueError("format: file and required: true may stand at an input itself only, not inside it")
        for inner in schema.values():
            _refuse_nested_files(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _refuse_nested_files(inner)


def _check_json(spec: ModelSpec, value: Any, at: tuple[str | int, ...]) -> None:
    if len(at) > _MOST_DEPTH:
        raise _refused(spec, at[:1], f"is deeper than {_MOST_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not is_text(key):
                raise _refused(spec, at, f"the key {key!r} is not text")
            _check_json(spec, inner, (*at, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_json(spec, inner, (*at, index))
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refused(spec, at, f"{value} is no number that JSON can hold")
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        raise _refused(spec, at, f"{value} is beyond 2^53, which JSON cannot hold; send it as text")
    elif isinstance(value, str):
        if not is_text(value):
            raise _refused(spec, at, "holds half a surrogate pair, which is no text")
    elif not (value is None or isinstance(value, bool | int | float)):
        raise _refused(spec, at, f"a {type(value).__name__} is no JSON value")


def _refused(spec: ModelSpec, at: tuple[str | int, ...], problem: str) -> InvalidJobInput:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in at)
    return InvalidJobInput(f"inputs of {spec.name}: {pointer}: {problem}", pointer=pointer)
