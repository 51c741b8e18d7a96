"""Whatever stands in a file or a manifest, only our own errors come out."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelrepo.contract import inputs, parse_spec, spec_from_json
from modelrepo.errors import InvalidInput, InvalidJobInput, InvalidSpec, NewerFormat

from .specs import EVERY_KEY

LINES = EVERY_KEY.splitlines(keepends=True)
SCRAPS = st.sampled_from(
    ["", "null", "[]", "{}", "0", "-1", "1.5", "true", "x", "'x'", "[1]", "{a: 1}", ":", "-", "  ", "\t", "*a", "&a b",
     "!x y", "|",
     "---", "\x00", "é", "1e999", "[[[", "? a", "2026-01-01", "<<: {}", "file", "type: [string]", "$ref: x"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(EVERY_KEY) - 1), st.integers(0, 30), SCRAPS)
def test_a_damaged_file_is_an_invalid_spec_or_still_a_spec(start: int, length: int, scrap: str) -> None:
    with contextlib.suppress(InvalidSpec):
        parse_spec(EVERY_KEY[:start] + scrap + EVERY_KEY[start + length :])


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(parse_spec(EVERY_KEY).raw)), JSON)
def test_a_damaged_manifest_is_an_invalid_spec_or_still_a_spec(key: str, value: Any) -> None:
    with contextlib.suppress(InvalidSpec, NewerFormat):
        spec_from_json({**parse_spec(EVERY_KEY).raw, key: value})


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "image", "steps", "other"]), JSON, max_size=4) | JSON)
def test_any_inputs_are_refused_or_taken(values: Any) -> None:
    with contextlib.suppress(InvalidJobInput):
        checked = inputs.check(parse_spec(EVERY_KEY), values)
        assert {"prompt", "steps"} <= set(checked)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text_at_all(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse_spec(text)
