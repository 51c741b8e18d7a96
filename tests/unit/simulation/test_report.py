from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput, MissingExtra
from modelrepo_cli.commands.simulate import POLICIES
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.simulation import plot as plots
from modelrepo_runtime.simulation.report import Report, simulate

from . import days

SMALL = days.BUSY.replace("[1500, 700, 200]", "[300, 40]")


@pytest.fixture(scope="module")
def report() -> Report:
    return simulate(days.day(SMALL), [Policy.SLO_SHARE, Policy.STRICT])


def test_the_same_seed_gives_the_same_bytes(report: Report) -> None:
    again = simulate(days.day(SMALL), [Policy.SLO_SHARE, Policy.STRICT])
    assert json.dumps(report.to_json()) == json.dumps(again.to_json())
    other = simulate(days.day(SMALL), [Policy.SLO_SHARE, Policy.STRICT], seed=4)
    assert json.dumps(report.to_json()) != json.dumps(other.to_json())


def test_a_policy_alone_gives_what_it_gives_among_others(report: Report) -> None:
    alone = simulate(days.day(SMALL), [Policy.STRICT])
    assert alone.to_json()["policies"]["strict"] == report.to_json()["policies"]["strict"]


def test_the_figures_of_a_tier(report: Report) -> None:
    document = report.to_json(exact_seconds=True)
    assert (document["seed"], document["day"], document["jobs"]) == (3, "busy", 340)
    for figures in document["policies"].values():
        assert 0 < figures["seconds"] < 60
        assert sum(tier["jobs"] for tier in figures["tiers"].values()) == 340
        for tier in figures["tiers"].values():
            assert 0 <= tier["wait_p50_s"] <= tier["wait_p99_s"] <= tier["wait_max_s"]
            assert 0 <= tier["slo_met"] <= 1


def test_seconds_are_rounded_up_to_minutes(report: Report) -> None:
    assert {figures["seconds"] for figures in report.to_json()["policies"].values()} == {60}


def test_the_command_knows_every_policy() -> None:
    assert set(POLICIES) == {policy.value for policy in Policy}


def test_a_plot_is_written_as_png_and_svg_and_is_the_same_each_time(report: Report, tmp_path: Path) -> None:
    png, svg = plots.plot(report, tmp_path / "plots")
    assert png.read_bytes().startswith(b"\x89PNG") and b"</svg>" in svg.read_bytes()
    again = plots.plot(report, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [png.read_bytes(), svg.read_bytes()]


def test_without_matplotlib_the_extra_is_named(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"modelrepo-toolkit\[plots\]"):
        plots.plot(report, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write the plot"):
        plots.plot(report, tmp_path / "file")
