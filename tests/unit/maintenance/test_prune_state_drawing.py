import re
from pathlib import Path

from modelrepo.maintenance.pending import TRANSITIONS

STATES = Path(__file__).parents[3] / "docs" / "states.md"


def test_the_drawing_of_prune_states_is_the_table() -> None:
    section = re.search(r"^## Prunes$(.*?)(?=^## |\Z)", STATES.read_text(encoding="utf-8"), re.M | re.S)
    assert section is not None, "docs/states.md has no section on prunes"
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", section[1], re.M))
    assert drawn == {(state.value, after.value) for state, others in TRANSITIONS.items() for after in others}
