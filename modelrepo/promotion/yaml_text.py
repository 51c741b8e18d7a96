"""YAML as the promotion's files use it: JSON's values, scalars by the YAML 1.2 core schema, no anchors, no tags.

What is written here reads the same under YAML 1.1, so that any tool may be pointed at these files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from modelrepo.errors import InvalidInput

_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_LINE_ENDS = frozenset("\r\x85\u2028\u2029\ufeff")
_CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - pyyaml's attribute

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "anchors are not allowed here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        assert isinstance(node, yaml.MappingNode)
        refuse_twice(node)
        return super().construct_mapping(node, deep=deep)

    def decimal(self, node: yaml.Node) -> int:
        return int(node.value, 10)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        # In any other style a reader would take these for the end of a line.
        style = '"' if _LINE_ENDS & set(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.decimal)
_Dumper.add_representer(str, _Dumper.text)
# The dumper quotes a text that either schema would take for something else.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT})\Z"), list("-+.0123456789"))


def dump(document: Mapping[str, Any]) -> str:
    """Return the document, keys in their order, a line each."""
    text: str = yaml.dump(
        _plain(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20, default_flow_style=None
    )
    return text


def compose(data: bytes) -> yaml.MappingNode:
    """Read one document, a mapping, as nodes.

    Raises:
        InvalidInput: it is something else, or no YAML.
    """
    try:
        node = yaml.compose(data, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(_one_line(error)) from error
    if node is None:
        raise InvalidInput("it is empty")
    if not isinstance(node, yaml.MappingNode):
        raise InvalidInput("it is no mapping of keys to values")
    try:
        refuse_twice(node)
    except yaml.YAMLError as error:
        raise InvalidInput(_one_line(error)) from error
    return node


def value_of(node: yaml.Node) -> Any:
    """Return the values of a node.

    Raises:
        InvalidInput
    """
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(_one_line(error)) from error
    finally:
        loader.dispose()


def load(data: bytes) -> dict[str, Any]:
    """Read one document, a mapping.

    Raises:
        InvalidInput
    """
    value: dict[str, Any] = value_of(compose(data))
    return value


def refuse_twice(node: yaml.MappingNode) -> None:
    """Raise where a mapping has a key twice: YAML readers differ in which one they take."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark
        problem = f"{error.context}, {error.problem}" if error.problem.startswith("but ") else error.problem
        return problem if mark is None else f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split()) or type(error).__name__
