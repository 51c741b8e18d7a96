import re
from pathlib import Path

from modelrepo_runtime.attempts import RULES
from modelrepo_runtime.jobs import TRANSITIONS, Cause, Status

STATES = Path(__file__).parents[3] / "docs" / "states.md"


def section() -> str:
    found = re.search(r"^## Jobs$(.*?)(?=^## |\Z)", STATES.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, "docs/states.md has no section on jobs"
    return found[1]


def test_the_drawing_of_job_states_is_the_table() -> None:
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)", section(), re.M))
    assert drawn == {(state.value, after.value) for state, others in TRANSITIONS.items() for after in others}


def test_ended_states_are_left_only_by_a_retry() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert {state for state in Status if state.ended and TRANSITIONS[state]} == {Status.FAILED}


def test_the_table_of_attempts_in_the_docs_is_the_one_in_the_code() -> None:
    told: dict[str, tuple[str, ...]] = {}
    for line in section().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            for cause in re.findall(r"`(\w+)`", cells[0]):
                told[cause] = tuple(cells[1:])
    assert set(told) == {cause.value for cause in Cause} == {cause.value for cause in RULES}
    for cause, rule in RULES.items():
        tries, then, against, place = told[cause.value]
        assert tries == ("no limit" if rule.tries is None else str(rule.tries)), cause
        assert then == ("-" if rule.tries is None else f"`{rule.ends_as.value}`"), cause
        assert against == (", ".join(sorted(rule.against)) or "nobody"), cause
        assert place == ("-" if rule.ends_as is not Status.FAILED else rule.elsewhere.value), cause
