"""The files under examples/deploy say nothing that this version does not know."""

from __future__ import annotations

import re
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrepo_cli.main import cli
from modelrepo_runtime.gateway.fleet_metrics import FIGURES
from modelrepo_runtime.gateway.metrics import Metrics

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "examples/deploy"
ON_CALL = (ROOT / "docs/howto/on-call.md").read_text()


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def known_metrics() -> dict[str, set[str]]:
    found = {figure.name: set(figure.labels) for figure in FIGURES}
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            found[name] = set(metric._labelnames)
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = known_metrics()
    asked = re.findall(r"modelrepo_\w+", rule["expr"])
    assert asked
    labels = set.union(*(known[name] for name in asked))
    for grouped in re.findall(r"\b(?:by|on) \(([\w, ]+)\)", rule["expr"]):
        assert set(grouped.split(", ")) <= labels
    for name, selected in re.findall(r"(modelrepo_\w+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selected)) <= known[name]
    grouped_by = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([\w, ]+)\)", rule["expr"]))))
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= grouped_by
    assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_its_part_in_the_guide_for_those_on_call(rule: dict[str, Any]) -> None:
    assert f"`{rule['alert']}`" in ON_CALL


@pytest.mark.parametrize(("file", "verb"), [("modelrepo-worker", "worker"), ("modelrepo-gateway", "gateway")])
def test_a_unit_starts_a_command_with_options_that_it_has(file: str, verb: str) -> None:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / f"{file}.service")
    words = unit["Service"]["ExecStart"].split()
    assert words[:2] == ["/opt/modelrepo/bin/modelrepo", verb]
    assert options(words) <= options_of(verb)
    grace = float(words[words.index("--grace") + 1]) if "--grace" in words else 30.0
    assert float(unit["Service"]["TimeoutStopSec"]) > grace


def test_the_container_starts_a_worker_with_options_that_it_has() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    assert entry is not None
    words = yaml.safe_load(entry[1])
    assert words[:2] == ["modelrepo", "worker"]
    assert options(words) <= options_of("worker")
    assert "STOPSIGNAL SIGTERM" in text


def options(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def options_of(verb: str) -> set[str]:
    context = cli.make_context("modelrepo", [verb], resilient_parsing=True)
    command = cli.get_command(context, verb)
    assert command is not None
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
