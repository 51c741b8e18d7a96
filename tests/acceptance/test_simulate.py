"""`modelrepo simulate`, as a user runs it: a small day, and a launch day on a fiftieth of everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.simulation import reading

ROOT = Path(__file__).resolve().parents[2]
EVENING = ROOT / "examples" / "days" / "evening.yaml"
FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"


def simulate(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelrepo_cli", "simulate", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, **(env or {})})


def figures(*args: str | Path) -> dict[str, Any]:
    done = simulate("--json", *args)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    one = simulate(EVENING, "--json", env={"PYTHONHASHSEED": "1"})
    two = simulate(EVENING, "--json", env={"PYTHONHASHSEED": "2"})
    assert one.returncode == 0 and one.stdout == two.stdout
    other = simulate(EVENING, "--json", "--seed", "8")
    assert other.stdout != one.stdout


def test_the_document_has_what_is_promised() -> None:
    document = figures(EVENING)
    assert document["seed"] == 7 and document["day"] == "evening"
    assert set(document["policies"]) == {"slo-share", "lwdf-late", "strict", "fifo"}
    for policy in document["policies"].values():
        assert policy["seconds"] <= 60 and policy["unended"] == 0
        for tier in policy["tiers"].values():
            assert {"jobs", "slo_met", "wait_p50_s", "wait_p99_s", "wait_max_s"} <= set(tier)


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    done = simulate(EVENING, "--policy", "strict", "--plot", tmp_path / "plots")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"evening.png", "evening.svg"}
    assert "WITHIN SLO" in done.stdout


def test_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "day.yaml").write_text(EVENING.read_text().replace("sizes:", "size:"))
    done = simulate(tmp_path / "day.yaml")
    assert done.returncode == 2 and "did you mean 'sizes'" in done.stderr and "day.yaml:" in done.stderr
    both = simulate(EVENING, "--overload", "1.2")
    assert both.returncode == 2 and "leave one out" in both.stderr


def test_what_show_day_prints_can_be_played(tmp_path: Path) -> None:
    for more in ((), ("--overload", "1.15")):
        day = tmp_path / "day.yaml"
        day.write_text(simulate("--show-day", *more).stdout)
        assert reading.read_day(day).tiers


def shipped(name: str, folder: Path, part: int) -> Path:
    """Write a shipped day, with that part of its jobs, slots and tenants unless everything is asked for."""

    def less(match: re.Match[str]) -> str:
        return match[0] if FULL else str(max(1, int(match[0]) // part))

    day = folder / name
    day.write_text(re.sub(r"(?<=[ \[])[0-9]{2,}(?=[,\]}])", less, reading.shipped(name)))
    return day


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    day = shipped(reading.LAUNCH, tmp_path_factory.mktemp("day"), 50)
    return figures(day, "--policy", "slo-share", "--policy", "strict")


def test_the_nine_hours_of_strict_priority_end_under_slo_share(launch: dict[str, Any]) -> None:
    hour_s = 3600
    strict, share = (launch["policies"][name] for name in ("strict", "slo-share"))
    assert strict["most_waiting"] >= launch["jobs"] / 5
    assert strict["tiers"]["free"]["wait_max_s"] > 8.5 * hour_s
    assert share["tiers"]["free"]["wait_max_s"] < strict["tiers"]["free"]["wait_max_s"] - 1.5 * hour_s
    for policy in (strict, share):
        assert policy["unended"] == 0
        assert policy["ends"]["succeeded"] > 0.99 * launch["jobs"]


def test_in_overload_lwdf_late_keeps_all_tiers_but_the_lowest_in_time(tmp_path: Path) -> None:
    day = shipped(reading.OVERLOAD, tmp_path, 20)  # of fewer jobs one burst would be too large a part
    document = figures(day, "--policy", "lwdf-late", "--policy", "slo-share", "--policy", "strict")
    met = {name: {tier: t["slo_met"] for tier, t in p["tiers"].items()} for name, p in document["policies"].items()}
    assert min(met["lwdf-late"][tier] for tier in ("api", "enterprise", "unlimited", "light")) > 0.95
    assert met["lwdf-late"]["free"] > met["strict"]["free"]
    assert max(met["slo-share"].values()) - min(met["slo-share"].values()) < 0.2
