import re
from pathlib import Path

from modelrepo_runtime.supervision import CHILD_TRANSITIONS, ChildState

STATES = Path(__file__).parents[3] / "docs" / "states.md"


def test_the_drawing_of_child_states_is_the_table() -> None:
    section = re.search(r"^## Children$(.*?)(?=^## |\Z)", STATES.read_text(encoding="utf-8"), re.M | re.S)
    assert section is not None, "docs/states.md has no section on children"
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", section[1], re.M))
    assert drawn == {(state.value, after.value) for state, others in CHILD_TRANSITIONS.items() for after in others}


def test_every_state_has_a_row_in_the_table() -> None:
    assert set(CHILD_TRANSITIONS) == set(ChildState)
