"""Users submit until they are stopped, and what goes wrong for them is told."""

from __future__ import annotations

import threading

import pytest

from modelrepo_cli.demo.load import Load


def test_every_tier_submits_until_it_is_stopped() -> None:
    seen: list[tuple[str, int]] = []
    both_twice = threading.Event()

    def submit(tier: str, number: int) -> None:
        seen.append((tier, number))
        if all(sum(tier == one for one, _ in seen) > 1 for tier in ("api", "free")):
            both_twice.set()

    with Load(submit, {"api": 0.001, "free": 0.001}) as load:
        assert both_twice.wait(30)
    at_the_end = list(seen)
    assert len({number for _, number in at_the_end}) == len(at_the_end)
    load.stop()
    load.check()
    assert seen == at_the_end


def test_a_refused_submission_is_raised_where_it_is_looked_for() -> None:
    tried = threading.Event()

    def submit(tier: str, number: int) -> None:
        tried.set()
        raise ConnectionError("away")

    with Load(submit, {"api": 0.001}) as load:
        assert tried.wait(30)
        load.stop()
        with pytest.raises(ConnectionError, match="away"):
            load.check()


def test_stopping_before_the_start_is_legal() -> None:
    Load(lambda tier, number: None, {"api": 1.0}).stop()
