"""YAML to JSON values with the line of every key and value.

Scalars are read by the YAML 1.2 core schema, so `on:` is text and `no` is no boolean. What JSON cannot hold is refused:
duplicate keys, dates, NaN, infinities, integers beyond 2^53, tags.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelrepo.contract.wording import is_text
from modelrepo.errors import InvalidSpec

Path = tuple[str | int, ...]
_MOST_NODES = 100_000  # aliases of aliases make exponentially many values of a small file
_MOST_DEPTH = 64
_MOST_INTEGER = 2**53
_MOST_DIGITS = 100  # Python refuses to read thousands


@dataclass(frozen=True, slots=True)
class Document:
    """A value and, for each path into it, the 1-based line of its key (or of the value in a sequence)."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int | None:
        """Return the line of the path, or of its nearest ancestor that the file holds."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


class _TaggedError(Exception):
    """A tag stands in the text; its arguments are the message and the line."""


class _Composer(yaml.SafeLoader):
    """Resolves plain scalars by the core schema, dates only to refuse them; takes no tags."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (pyyaml's own attribute)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise _TaggedError(f"the tag {tag!r} is not read; write plain YAML", event.start_mark.line + 1)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("timestamp", r"\d{4}-\d\d?-\d\d?([Tt ].*)?", list("0123456789")),
):
    _Composer.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse_yaml(text: str, path: str) -> Document:
    """Raises: InvalidSpec."""
    try:
        loader = _Composer(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except _TaggedError as error:
        message, line = error.args
        raise InvalidSpec(message, path=path, line=line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise InvalidSpec(f"no YAML: {problem}", path=path, line=mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidSpec(f"no YAML: {error}".splitlines()[0], path=path) from None
    reader = _Reader(path)
    value = None if node is None else reader.value(node, ())
    return Document(value, reader.lines)


@dataclass(slots=True)
class _Reader:
    path: str
    lines: dict[Path, int] = field(default_factory=dict)
    nodes: int = 0

    def fail(self, message: str, node: yaml.Node, at: Path) -> InvalidSpec:
        key = ".".join(map(str, at)) or None
        return InvalidSpec(message, path=self.path, line=node.start_mark.line + 1, key=key)

    def value(self, node: yaml.Node, at: Path) -> Any:
        self.nodes += 1
        if self.nodes > _MOST_NODES or len(at) > _MOST_DEPTH:
            raise self.fail("too deep or too large; an alias may hold itself", node, at)
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*at, index)) for index, item in enumerate(node.value)]
        return self.scalar(node, at)

    def mapping(self, node: yaml.MappingNode, at: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not is_text(str(key_node.value)):
                raise self.fail("a key must be plain text", key_node, at)
            key = str(key_node.value)
            if key in found:
                first = self.lines[(*at, key)]
                raise self.fail(f"{key!r} is given twice, first on line {first}; keep one", key_node, (*at, key))
            if key == "<<" and key_node.style is None:
                raise self.fail("merge keys (<<) are not read; write the keys out", key_node, at)
            self.lines[(*at, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*at, key))
        return found

    def scalar(self, node: yaml.Node, at: Path) -> Any:
        text, kind = str(node.value), node.tag.rpartition(":")[2]
        if kind == "str":
            if not is_text(text):
                raise self.fail("holds half a surrogate pair, which is no text", node, at)
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            number = int(text[:_MOST_DIGITS], 0 if text[:2] in ("0x", "0o") else 10)
            if len(text) > _MOST_DIGITS or abs(number) > _MOST_INTEGER:
                raise self.fail(f"{text[:_MOST_DIGITS]} is beyond 2^53, which JSON cannot hold; quote it", node, at)
            return number
        if kind == "float" and math.isfinite(real := float(text.replace(".inf", "inf").replace(".nan", "nan"))):
            return real
        if kind == "float":
            raise self.fail(f"{text} is no number that JSON can hold", node, at)
        raise self.fail(f"{text} reads as a date, which JSON cannot hold; quote it", node, at)
