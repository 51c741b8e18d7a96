"""docs/contract.md is normative, so it is held to the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelrepo.contract import CTX_MEMBERS, JOB_MEMBERS, json_schema, parse_spec
from modelrepo.contract.size_expression import FUNCTIONS
from modelrepo.errors import InvalidSpec

PAGE = (Path(__file__).parents[3] / "docs" / "contract.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_is_a_valid_model_yaml() -> None:
    assert len(EXAMPLES) == 3
    assert [parse_spec(text).name for text in EXAMPLES] == ["echo", "video-gen", "short"]


def test_the_error_that_is_shown_is_the_one_that_is_given() -> None:
    broken = EXAMPLES[1].replace("maxLength", "maxLenght")
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(broken)
    shown = re.search(r"error: model\.yaml:\d+: (.*)", PAGE)
    assert shown is not None
    assert str(caught.value).endswith(shown[1])


def test_every_key_has_its_row() -> None:
    schema = json_schema()
    stage = schema["properties"]["stages"]["items"]["properties"]
    for key in [*schema["properties"], *stage]:
        assert re.search(rf"^\| `{key}` \|", PAGE, re.MULTILINE), key


def test_every_promised_member_is_described() -> None:
    rows = re.findall(r"^\| (`[a-z].*?) \| ", PAGE, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([a-z_]+)", row)}
    assert {*CTX_MEMBERS, *JOB_MEMBERS} <= described


def test_every_function_of_a_size_is_named() -> None:
    assert f"`{' '.join(FUNCTIONS)}`" in PAGE
