"""The API's documents as TypeScript types, made from its OpenAPI description; a gateway serves them at /v1/types.ts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}
HEAD = "// The documents of the modelrepo API, from its OpenAPI description. Made by the gateway: do not edit.\n"


def types(document: Mapping[str, Any]) -> str:
    """Return a module with an exported interface for each schema of an OpenAPI document, and the paths by operation."""
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    parts = [HEAD]
    for name, schema in sorted(schemas.items()):
        note = _note(schema, "")
        if "properties" in schema:
            parts.append(f"{note}export interface {name} {_object(schema, '')}\n")
        else:
            parts.append(f"{note}export type {name} = {_type(schema, '')};\n")
    return "\n".join([*parts, _operations(document["paths"])])


def _operations(paths: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f'  {operation["operationId"]}: {{ method: "{method.upper()}", path: {json.dumps(path)} }},'
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]
    return "\n".join(["export const operations = {", *sorted(rows), "} as const;", ""])


def _type(schema: Mapping[str, Any], indent: str) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(each, indent) for each in schema["anyOf"]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": each}, indent) for each in kind)
    if kind == "array":
        inner = _type(schema.get("items", {}), indent)
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    if kind == "object":
        return _object(schema, indent) if "properties" in schema else "Record<string, unknown>"
    return _PLAIN.get(str(kind), "unknown")


def _object(schema: Mapping[str, Any], indent: str) -> str:
    required: Sequence[str] = schema.get("required", ())
    lines = ["{"]
    for name, inner in schema["properties"].items():
        key = name if _NAME.fullmatch(name) else json.dumps(name)
        optional = "" if name in required else "?"
        lines.append(f"{_note(inner, indent + '  ')}{indent}  {key}{optional}: {_type(inner, indent + '  ')};")
    return "\n".join([*lines, f"{indent}}}"])


def _note(schema: Mapping[str, Any], indent: str) -> str:
    text = " ".join(str(schema.get("description", "")).split()).replace("*/", "* /")
    return f"{indent}/** {text} */\n" if text else ""
