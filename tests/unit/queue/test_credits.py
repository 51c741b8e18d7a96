"""The rules of dispatch credits."""

from __future__ import annotations

import pytest

from modelrepo_runtime.jobs import StageNeed
from modelrepo_runtime.queue import credits as rules

PREPARE, GENERATE, FINISH = StageNeed("prepare", "cpu"), StageNeed("generate"), StageNeed("finish", "cpu")
THREE = (PREPARE, GENERATE, FINISH)


@pytest.mark.parametrize(
    ("plan", "takes"),
    [
        (THREE, True),
        ((PREPARE, GENERATE), True),
        ((GENERATE,), False),
        ((GENERATE, FINISH), False),
        ((PREPARE, FINISH), False),
        ((PREPARE,), False),
        ((), False),
    ],
)
def test_only_a_plan_that_prepares_on_the_cpu_for_an_accelerator_takes_credits(
    plan: tuple[StageNeed, ...], takes: bool
) -> None:
    assert rules.takes_credits(plan) is takes


def test_the_first_stage_takes_the_accelerators_gives_back_and_a_lost_one_takes_again() -> None:
    assert [rules.takes_one(THREE, at) for at in range(3)] == [True, False, False]
    assert [rules.gives_back(THREE, at) for at in range(3)] == [False, True, False]
    assert [rules.enters_again(THREE, at) for at in range(3)] == [False, True, False]
    assert [rules.is_ahead(THREE, at) for at in range(3)] == [True, True, False]
    assert not rules.enters_again((GENERATE, FINISH), 0)


@pytest.mark.parametrize(
    ("slots", "ratio", "most"), [(0, 1.0, 0), (1, 1.0, 2), (1, 0.0, 1), (10, 0.5, 22), (10, 2.1, 44), (20, 1.0, 44)]
)
def test_the_limit_is_a_job_for_each_slot_those_prepared_meanwhile_and_a_tenth(
    slots: int, ratio: float, most: int
) -> None:
    assert rules.limit(slots, ratio) == most


def test_nothing_is_granted_from_the_limit_on() -> None:
    assert [rules.grants(2, held) for held in (0, 1, 2, 5)] == [2, 1, 0, 0]


def test_a_ratio_that_nobody_has_measured_is_one() -> None:
    assert rules.ratio(None, 3.0) == rules.ratio(3.0, None) == rules.ratio(3.0, 0.0) == 1.0
    assert rules.ratio(3.0, 6.0) == 0.5
