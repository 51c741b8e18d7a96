"""Users submit until they are stopped, and what goes wrong for them is told."""

from __future__ import annotations

import threading

import pytest

from modelrepo_cli.demo.load import Load


def test_every_tier_submits_and_the_ids_are_kept() -> None:
    seen: set[str] = set()
    all_seen = threading.Event()

    def submit(tier: str, number: int) -> str:
        seen.add(tier)
        if seen == {"api", "free"}:
            all_seen.set()
        return f"{tier}-{number}"

    with Load(submit, {"api": 0.001, "free": 0.001}) as load:
        assert all_seen.wait(30)
    ids = load.submitted()
    assert len(ids) == len(set(ids))
    assert {one.partition("-")[0] for one in ids} == {"api", "free"}
    load.stop()
    assert load.submitted() == ids


def test_a_refused_submission_is_raised_where_it_is_looked_for() -> None:
    tried = threading.Event()

    def submit(tier: str, number: int) -> str:
        tried.set()
        raise ConnectionError("away")

    with Load(submit, {"api": 0.001}) as load:
        assert tried.wait(30)
        load.stop()
        with pytest.raises(ConnectionError, match="away"):
            load.check()


def test_stopping_before_the_start_is_legal() -> None:
    Load(lambda tier, number: "", {"api": 1.0}).stop()
