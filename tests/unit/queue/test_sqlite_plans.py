"""How SQLite looks for one waiting job: in no case by reading a lane of a million."""

import sqlite3
from contextlib import closing

import pytest

from modelrepo_runtime.queue.sqlite.database import make
from modelrepo_runtime.queue.sqlite.statements import texts


@pytest.mark.parametrize("name", ["ready_of_job", "waits_of_job"])
def test_one_waiting_job_is_found_by_seeks(name: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make(connection)
        plan = [row[3] for row in connection.execute(f"explain query plan {texts()[name]}", (1, 1, 1)).fetchall()]
    assert any("ready_oldest (lane=? AND enqueued=? AND job=?)" in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN")]


def test_the_window_of_a_version_is_read_through_its_index() -> None:
    values = ("m", "v", "s", 0.0, 256)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make(connection)
        statement = f"explain query plan {texts()['verdicts_newest']}"
        plan = [row[3] for row in connection.execute(statement, values).fetchall()]
    assert plan == ["SEARCH verdict USING INDEX verdict_of_version (model=? AND version=? AND stage=? AND at>?)"]
