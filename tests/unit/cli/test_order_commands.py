"""`tenants`, `tiers` and the part of `queue` that sets the order in which jobs go."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelrepo_cli import exit_codes
from modelrepo_cli.commands.queue import POLICIES
from modelrepo_cli.main import main
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    path = tmp_path / "queue.db"
    with closing(SqliteQueue(path)) as made:
        made.submit(Submission("m", {}, (StageNeed("run"),), tenant="acme"))
    return path


def run(queue: Path, capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert main([*args, "--queue", str(queue)]) == code
    printed = capsys.readouterr()
    return printed.out or printed.err


def run_json(queue: Path, capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    return json.loads(run(queue, capsys, *args, "--json"))


def test_a_tenant_is_set_and_listed(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "acme" in run(queue, capsys, "tenants")
    said = run(queue, capsys, "tenants", "set", "acme", "--weight", "2.5", "--burst", "any")
    assert "acme: weight 2.5, burst any" in said
    found = run_json(queue, capsys, "tenants", "list")["tenants"]
    assert found == [{"name": "acme", "weight": 2.5, "burst_jobs": None}]
    assert "burst 40 jobs" in run(queue, capsys, "tenants", "set", "acme", "--burst", "40")


@pytest.mark.parametrize("options", [(), ("--burst", "lots"), ("--weight", "0"), ("--weight", "nan")])
def test_a_share_that_makes_no_sense_is_refused(
    queue: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert "acme" in run(queue, capsys, "tenants", "set", "acme", *options, code=exit_codes.INVALID) or options


def test_a_tier_can_refuse_what_would_be_late(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("tiers", "set", "api", "--slo", "90s", "--allowed-miss", "3%", "--refuse-late")
    assert run_json(queue, capsys, *args)["refuse_late"] is True
    assert run_json(queue, capsys, "tiers", "set", "api", "--no-refuse-late")["refuse_late"] is False
    run(queue, capsys, "tiers", "default", "api")
    (tier,) = [tier for tier in run_json(queue, capsys, "tiers")["tiers"] if tier["name"] == "api"]
    assert (tier["slo_s"], tier["allowed_miss"], tier["default"]) == (90.0, 0.03, True)


def test_every_policy_can_be_chosen(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(POLICIES) == tuple(policy.value for policy in Policy)
    assert run(queue, capsys, "queue", "policy").strip() == "slo-share"
    for name in POLICIES:
        assert run_json(queue, capsys, "queue", "policy", name) == {"policy": name}
    assert "lwdf" in run(queue, capsys, "queue", "policy", "luck", code=exit_codes.INVALID)


def test_models_and_tiers_are_paused_and_resumed(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "m, all tiers: paused" in run(queue, capsys, "queue", "pause", "m")
    assert "all models, tier api: paused" in run(queue, capsys, "queue", "pause", "--tier", "api")
    said = run(queue, capsys, "queue", "resume", "m")
    assert "m, all tiers: resumed" in said and "still paused: all models, tier api" in said
    assert run_json(queue, capsys, "queue", "resume", "--tier", "free")["resumed"] is False
    assert "unknown tier" in run(queue, capsys, "queue", "pause", "--tier", "gold", code=exit_codes.INVALID)
    kinds = [json.loads(line)["kind"] for line in run(queue, capsys, "events", "--json").splitlines()]
    assert kinds == ["paused", "paused", "resumed"]
