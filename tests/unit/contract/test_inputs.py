from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import FormatChecker

from modelrepo.contract import inputs, parse_spec, size_class
from modelrepo.contract.dialect import FORMATS
from modelrepo.contract.size_expression import evaluate, names_in
from modelrepo.errors import InvalidJobInput, InvalidSpec

from .specs import EVERY_KEY, SMALL, spec_with

VIDEO = parse_spec(EVERY_KEY)


def test_defaults_are_filled_in() -> None:
    assert inputs.check(VIDEO, {"prompt": "cat"}) == {"prompt": "cat", "steps": 40}


def test_a_model_without_inputs_takes_anything_that_is_json() -> None:
    spec = parse_spec(SMALL)
    assert inputs.check(spec, {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    with pytest.raises(InvalidJobInput, match="/a/1/b: nan is no number") as caught:
        inputs.check(spec, {"a": [1, {"b": float("nan")}]})
    assert caught.value.pointer == "/a/1/b"


@pytest.mark.parametrize(
    ("values", "pointer", "message"),
    [
        ({}, "/prompt", "is missing and has no default; give it"),
        ({"prompt": "cat", "stepz": 1}, "/stepz", "unknown input; did you mean 'steps'?"),
        ({"prompt": "cat", "steps": 101}, "/steps", "101 is not at most 100"),
        ({"prompt": "cat", "steps": "4"}, "/steps", '"4" is not a whole number'),
        ({"prompt": "x" * 2001}, "/prompt", "is not text of at most 2000 characters"),
        ({"prompt": 1}, "/prompt", "1 is not text"),
        ({"prompt": "cat", "image": 1}, "/image", "1 is not a file: give a path (-i image=@FILE"),
        ({"prompt": "cat", "image": "http://x/y.png"}, "/image", "is not a file"),
        ({"prompt": "cat", "image": {"id": "x"}}, "/image", 'is not {"file": id}'),
        ({"prompt": "cat", "image": Path("/no/such.png")}, "/image", "no file at"),
        ({"prompt": "\ud800"}, "/prompt", "holds half a surrogate pair, which is no text"),
        ([1], "", "is not a mapping"),
    ],
)
def test_a_refused_input_has_a_pointer(values: Any, pointer: str, message: str) -> None:
    with pytest.raises(InvalidJobInput) as caught:
        inputs.check(VIDEO, values)
    assert message in str(caught.value)
    assert caught.value.pointer == pointer
    assert len(str(caught.value)) < 300


def test_inputs_that_are_too_deep_are_refused() -> None:
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidJobInput, match="deeper than 64 levels"):
        inputs.check(spec_with(), {"a": value})


def test_formats_are_the_same_on_every_box() -> None:
    spec = spec_with("inputs: {mail: {type: string, format: email}, when: {type: string, format: date-time}}")
    assert inputs.check(spec, {"when": "soon"}) == {"when": "soon"}
    with pytest.raises(InvalidJobInput, match='/mail: "x" is not text in the format email'):
        inputs.check(spec, {"mail": "x"})
    assert set(FORMATS) <= set(FormatChecker.checkers)


def test_a_whole_number_reaches_the_model_as_one_however_it_is_written() -> None:
    spec = spec_with("inputs: {steps: {type: integer, default: 4.0}}")
    for checked in (inputs.check(spec, {"steps": 3.0}), inputs.check(spec, {})):
        assert isinstance(checked["steps"], int)


def test_a_pattern_that_ends_in_a_dollar_admits_no_newline() -> None:
    spec = spec_with('inputs: {code: {type: string, pattern: "^[a-z]+$"}, price: {type: string, pattern: "[$]$|x"}}')
    assert inputs.check(spec, {"code": "abc", "price": "1$"})
    with pytest.raises(InvalidJobInput, match="/code"):
        inputs.check(spec, {"code": "abc\n"})


def test_a_pointer_goes_inside_and_escapes_its_parts() -> None:
    spec = spec_with(
        """
        inputs:
          boxes: {type: array, items: {type: object, properties: {"a/b~c": {type: integer}}, required: [w]}}
        """
    )
    with pytest.raises(InvalidJobInput) as caught:
        inputs.check(spec, {"boxes": [{"w": 1, "a/b~c": 1}, {"w": 1, "a/b~c": "x"}]})
    assert caught.value.pointer == "/boxes/1/a~1b~0c"
    with pytest.raises(InvalidJobInput, match="/boxes/0: the key 'w' is missing"):
        inputs.check(spec, {"boxes": [{}]})


def test_a_file_may_be_an_id_an_address_or_a_path(tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    picture.write_bytes(b"x")
    for image in ({"file": "f1"}, "https://example.org/a.png", picture):
        assert inputs.check(VIDEO, {"prompt": "cat", "image": image})["image"] == image
    assert inputs.file_inputs(VIDEO) == ("image",)
    assert inputs.file_outputs(VIDEO) == {"video": "video/mp4"}


def test_a_file_is_held_against_its_size_and_type(tmp_path: Path) -> None:
    wrong = tmp_path / "in.gif"
    wrong.write_bytes(b"x")
    with pytest.raises(InvalidJobInput, match="the file is image/gif, the model takes image/png, image/jpeg"):
        inputs.check(VIDEO, {"prompt": "cat", "image": wrong})
    with pytest.raises(InvalidJobInput, match="the file has 30 MiB, the model takes at most 20MiB"):
        inputs.check_file(VIDEO, "image", size_bytes=30 << 20, content_type="image/png")
    inputs.check_file(VIDEO, "image", size_bytes=20 << 20, content_type=None)


def test_the_size_class_has_two_digits() -> None:
    spec = spec_with('inputs: {w: {type: integer, required: true}, h: {type: integer, default: 1}}\nsize: "w * h"')
    assert size_class(spec, {"w": 1280, "h": 720}) == "920000"
    assert size_class(spec, {"w": 3, "h": 0}) == "0"
    assert size_class(parse_spec(SMALL), {}) is None
    assert size_class(spec, {"w": 1}) is None
    with pytest.raises(InvalidSpec, match="the input 'w' may be missing; give it a default or required: true"):
        spec_with("inputs: {w: {type: integer}}\nsize: w")


def test_the_size_expression_is_arithmetic() -> None:
    assert (
        evaluate("ceil(w / 8) * max(h, 2) ** 2 - -1 + len(p) % 3 + on", {"w": 9, "h": 1, "p": "ab", "on": True}) == 12
    )
    assert names_in("max(a, b) + c") == {"a", "b", "c"}


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a.b", "a[0]", "(lambda: 1)()", "f(1)", "'x' * 9", "[a]", "a if b else c", "max()", "1 +",
     "True", "max(*a)", "min(a, key=b)", "a" * 501, "(" * 400],
)  # fmt: skip
def test_nothing_but_arithmetic_may_stand_in_a_size(text: str) -> None:
    with pytest.raises(InvalidSpec):
        spec_with(f'size: "{text}"')


@pytest.mark.parametrize("text", ["9**9**9**9", "1/a", "a**0.5 ** -9999", "(0-8)**0.5", "1e308*10", "10**18*10"])
def test_what_has_no_value_or_a_huge_one_is_an_error_at_once(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text, {"a": 0})


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_sums_and_products_are_those_of_python(a: int, b: int) -> None:
    assert evaluate("a * b + a - 2 * b", {"a": a, "b": b}) == a * b + a - 2 * b
