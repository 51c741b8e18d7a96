"""Canonical JSON is RFC 8785's, and what JSON cannot hold is refused."""

from __future__ import annotations

import datetime
import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo import canonical
from modelrepo.errors import InvalidInput


def test_there_is_one_text() -> None:
    assert canonical.dumps({"b": [1, 1.0, 1e21, -0.0], "a": "é\n", "": None}) == (
        '{"":null,"a":"é\\n","b":[1,1,1e+21,0]}'.encode()
    )
    assert canonical.dumps(MappingProxyType({"a": (1, 2)})) == b'{"a":[1,2]}'
    assert canonical.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        datetime.date(2024, 1, 1),
        {1: 2},
        {"a": b"x"},
        "\ud800",
        {"a": {1, 2}},
    ],
)
def test_what_json_lacks_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="canonical JSON"):
        canonical.dumps({"nested": [value]})


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.text(st.characters(exclude_categories=["Cs"]))
        | st.integers(-(2**53) + 1, 2**53 - 1),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=8,
    )
)
def test_it_is_json(value: Any) -> None:
    assert json.loads(canonical.dumps(value)) == value
