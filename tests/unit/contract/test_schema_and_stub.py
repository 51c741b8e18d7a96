from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from modelrepo.contract import CTX_MEMBERS, JOB_MEMBERS, ModelSpec, json_schema, parse_spec, type_stub
from modelrepo.errors import InvalidSpec
from modelrepo.names import check_model_name

from .specs import EVERY_KEY, SMALL


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_schema_and_spec_have_the_same_keys() -> None:
    assert set(json_schema()["properties"]) == {field.name for field in fields(ModelSpec)} - {"raw"}


def test_the_example_uses_every_key_of_the_schema() -> None:
    raw = parse_spec(EVERY_KEY).raw
    used = set(_keys(raw))
    declared = set(_declared({**json_schema(), "$defs": {}}))
    # `required` of an input is in the example; cpu and mps belong to the short form, shown by its own test.
    assert declared - used <= {"cuda", "rocm", "cpu", "mps"}


def test_every_key_reaches_the_spec() -> None:
    full, small = parse_spec(EVERY_KEY), parse_spec(SMALL)
    for field in fields(ModelSpec):
        if field.name != "contract":
            assert getattr(full, field.name) != getattr(small, field.name), field.name


@pytest.mark.parametrize("name", ["a", "a-b.c_d", "x" * 64, "-a", "a-", "A", "a" * 65, "a/b", "", "ä"])
def test_the_schema_allows_the_names_that_the_format_allows(name: str) -> None:
    try:
        check_model_name(name)
        allowed = True
    except ValueError:
        allowed = False
    try:
        parse_spec(SMALL.replace("tiny", f"'{name}'"))
        assert allowed
    except InvalidSpec:
        assert not allowed


def test_the_stub_has_exactly_the_promised_members() -> None:
    classes = {node.name: node for node in ast.parse(type_stub()).body if isinstance(node, ast.ClassDef)}
    for name, members in (("Ctx", CTX_MEMBERS), ("Job", JOB_MEMBERS)):
        found = [node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)]
        assert sorted(found) == sorted(members)
        assert len(set(members)) == len(members)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _declared(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from _declared(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _declared(inner)
