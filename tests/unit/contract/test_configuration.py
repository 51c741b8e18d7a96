from __future__ import annotations

import pytest

from modelrepo.contract import effective_config, spec_from_json
from modelrepo.errors import InvalidInput

SPEC = {"contract": 1, "name": "cats", "entrypoint": "model:Cats", "config": {"gain": 1, "loud": False}}


def test_a_number_takes_any_number() -> None:
    """A default of 1.0 is 1 once it was canonical JSON, so the manifest cannot tell which of them was meant."""
    assert effective_config(spec_from_json(SPEC), {"gain": 1.5})["gain"] == 1.5


@pytest.mark.parametrize(("key", "value"), [("gain", True), ("gain", "1"), ("loud", 1)])
def test_a_number_is_neither_text_nor_a_boolean(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match="another type than its default"):
        effective_config(spec_from_json(SPEC), {key: value})
