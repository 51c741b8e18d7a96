from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.errors import InvalidSpec
from modelrepo_runtime.simulation import reading
from modelrepo_runtime.simulation.day import Step

from . import days


def test_the_shipped_days_are_what_they_say() -> None:
    launch = reading.shipped_day(reading.LAUNCH)
    hourly = launch.arrivals_per_hour()
    assert sum(hourly) + sum(flood.jobs for flood in launch.floods) == 500_000 and len(hourly) == 12
    slots = [
        sum(max((s.slots for s in c.gpus if s.at_s <= hour * 3600), default=0) for c in launch.clusters)
        for hour in (0, 6, 9)
    ]
    assert slots == [500, 5000, 9000]
    assert [tier.name for tier in launch.tiers] == ["api", "enterprise", "unlimited", "light", "free"]


def test_an_overload_is_what_the_accelerators_can_do_and_more() -> None:
    day = reading.shipped_day(reading.OVERLOAD, load=1.5)
    assert day.name == "overload 1.5" and len(day.arrivals_per_hour()) == 6
    assert day.arrivals_per_hour()[0] == round(1.5 * 1000 * 3600 / day.mean_s(day.gpu_stage))


def test_moments_and_spans_are_read_in_several_units() -> None:
    day = days.day(days.BUSY)
    assert day.clusters[1].gpus == (Step(5400.0, 16), Step(9000.0, 4))
    assert day.sizes[0].stages_s == (4.0, 40.0, 2.0)


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("tenants:", "tenant:", 10, "unknown key 'tenant'; did you mean 'tenants'?"),
        ("  api: {share: 10%}", "  ap: {share: 10%}", 5, "tiers.ap: .* add its slo:; did you mean 'api'?"),
        ("share: 40%}\ntenants", "share: 41%}\ntenants", 4, "the shares make 101 % together"),
        ("share: 60%", "share: sixty", 13, "a share such as 15% or 0.15"),
        ("generate: 40s", "generate: 40", 13, "a length of time such as 90s"),
        ("generate: 40s", "generate: 0s", 13, "must be above 0 s"),
        ("prepare: 8s, ", "", 14, "short has prepare: and long has not"),
        ("gpus: {0h: 16, 1h: 40}", "gpus: {noon: 16}", 17, "a time after the day's beginning"),
        ("gpus: {0h: 16, 1h: 40}", "gpus: {0h: -1}", 17, "at least 0"),
        ("    cpus: {0h: 4, 1h: 8}\n", "", 16, "add cpus:"),
        ("{per_hour: [1500, 700, 200]}", "{load: 1.1}", 3, "load: needs hours:"),
        ("{per_hour: [1500, 700, 200]}", "{per_hour: [1], load: 1.1}", 3, "either per_hour: or load:"),
        ("{per_hour: [1500, 700, 200]}", "{per_hour: [0]}", 3, "a day has 1 to"),
        ("arrivals: {per_hour: [1500, 700, 200]}\n", "", 1, "the key 'arrivals' is missing"),
        ("seed: 3", "seed: 3\nseed: 4", 3, "given twice"),
        ("seed: 3", "seed: -3", 2, "at least 0"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line_and_the_nearest_name(old: str, new: str, line: int, told: str) -> None:
    text = days.BUSY.replace(old, new, 1)
    assert text != days.BUSY
    with pytest.raises(InvalidSpec, match=told.replace("(", r"\(").replace("?", r"\?")) as caught:
        days.day(text)
    assert caught.value.line == line and str(caught.value).startswith(f"day.yaml:{line}: ")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("floods:\n  - {at: 1h, tenant: a, tier: fre, jobs: 5}\n", "no tier 'fre'; did you mean 'free'"),
        ("rollouts:\n  - {at: 1h, version: v1}\n", "was live before"),
        ("rollouts:\n  - {at: 1h, version: v2, failing: 10%}\n", "needs rollback_after:"),
        ("rollouts:\n  - {at: 1h, version: v2, max_unavailable: lots}\n", "a share such as 10%, or a number"),
        ("failures: {crash: 60%, exception: 50%}\n", "would fail"),
        ("failures: {crahs: 60%}\n", "did you mean 'crash'"),
    ],
)
def test_what_cannot_be_played_is_refused(more: str, told: str) -> None:
    with pytest.raises(InvalidSpec, match=told):
        days.day(days.BUSY + more)


@pytest.mark.parametrize("text", ["", "- 1\n", "7\n"])
def test_what_is_no_mapping_is_refused_with_a_way_to_begin(text: str) -> None:
    with pytest.raises(InvalidSpec, match="--show-day"):
        days.day(text)


def test_a_file_that_is_not_there_is_told_with_a_way_to_begin(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="--show-day"):
        reading.read_day(tmp_path / "none.yaml")
