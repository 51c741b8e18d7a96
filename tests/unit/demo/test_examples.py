"""Both versions of both examples can be put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.contract import load_spec
from modelrepo.errors import NotFound
from modelrepo_cli.demo import examples
from modelrepo_cli.demo.scenario import DIGITS, HELLO, TIERS, Scenario


@pytest.mark.parametrize("scenario", [HELLO, DIGITS])
def test_the_versions_differ_in_their_checkpoints_alone(scenario: Scenario, tmp_path: Path) -> None:
    folders = [
        examples.assemble(scenario.example, tmp_path / str(earlier), earlier=earlier) for earlier in (True, False)
    ]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert contents[0].keys() == contents[1].keys()
    differing = {path for path in contents[0] if contents[0][path] != contents[1][path]}
    assert differing
    assert {path.parts[0] for path in differing} == {"checkpoints"}


@pytest.mark.parametrize("scenario", [HELLO, DIGITS])
def test_a_scenario_asks_for_what_its_model_takes(scenario: Scenario) -> None:
    from modelrepo.contract import inputs

    spec = load_spec(examples.example_folder(scenario.example))
    assert spec.name == scenario.example
    asked = [scenario.short_job(7), scenario.long_job, *([scenario.shown_job] if scenario.shown_job else [])]
    for job in asked:
        assert set(inputs.check(spec, dict(job))) == set(spec.inputs or {})
    assert tuple(scenario.between_jobs_s) == TIERS
    if scenario.shown_job:
        assert scenario.shown_output in spec.outputs


def test_an_example_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="cannot find the example no-such"):
        examples.example_folder("no-such")
