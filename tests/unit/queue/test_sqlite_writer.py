from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import ModelRepoError, Unreachable
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.relational.transaction import Refused, Transaction
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.sqlite.turnstile import Turnstile
from modelrepo_runtime.queue.sqlite.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[SqliteQueue]:
    with closing(SqliteQueue(path)) as opened:
        yield opened


def put(name: str) -> Callable[[Transaction], str]:
    def work(tx: Transaction) -> str:
        tx.run("turn_put", "m", "swap", name, 0)
        return name

    return work


def names(queue: SqliteQueue) -> set[str]:
    return {row["slot"] for row in queue.database.reader.execute("select slot from turn")}


class Held:
    """Holds the turnstile, so that calls gather behind it."""

    def __init__(self, path: Path) -> None:
        self._turnstile = Turnstile(path)

    def __enter__(self) -> None:
        fcntl.flock(self._turnstile._main, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._turnstile.close()


def gather(queue: SqliteQueue, path: Path, works: list[Callable[[Transaction], Any]]) -> list[Any]:
    """Run calls so that they share one transaction; return each one's answer or error."""
    pool = ThreadPoolExecutor(len(works))
    with pool:
        with Held(path):
            futures = [pool.submit(queue.database.writer.run, work) for work in works]
            wait_until(lambda: len(queue.database.writer._calls) == len(works))
        return [future.exception() or future.result() for future in futures]


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(5000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come about")


def commits(queue: SqliteQueue) -> int:
    """Return the number of writes to the database file's log that others can see: its data version."""
    return int(queue.database.reader.execute("pragma data_version").fetchone()[0])


def test_calls_that_wait_together_share_one_commit(queue: SqliteQueue, path: Path) -> None:
    before = commits(queue)
    assert gather(queue, path, [put(f"s{n}") for n in range(20)]) == [f"s{n}" for n in range(20)]
    assert names(queue) == {f"s{n}" for n in range(20)}
    assert commits(queue) == before + 1


def test_a_call_that_fails_takes_only_its_own_changes_back(queue: SqliteQueue, path: Path) -> None:
    def fail(tx: Transaction) -> None:
        tx.run("turn_put", "m", "swap", "half", 0)
        tx.later("turn_put", "m", "swap", "later", 0)
        raise ModelRepoError("no")

    answers = gather(queue, path, [put("a"), fail, put("b")])
    assert answers[0] == "a" and answers[2] == "b" and str(answers[1]) == "no"
    assert names(queue) == {"a", "b"}
    with pytest.raises(ModelRepoError, match="no"):
        queue.database.writer.run(fail)
    assert names(queue) == {"a", "b"}


def test_a_refusal_keeps_what_it_wrote(queue: SqliteQueue) -> None:
    def refuse(tx: Transaction) -> Refused[ModelRepoError]:
        tx.run("turn_put", "m", "swap", "noted", 0)
        return Refused(ModelRepoError("refused"))

    with pytest.raises(ModelRepoError, match="refused"):
        queue.database.writer.run(refuse)
    assert names(queue) == {"noted"}


def test_what_is_put_off_is_run_before_the_answer(queue: SqliteQueue) -> None:
    queue.database.writer.run(lambda tx: tx.later("turn_put", "m", "swap", "off", 0))
    assert names(queue) == {"off"}


def test_an_error_of_the_database_reaches_every_caller_of_the_group(queue: SqliteQueue, path: Path) -> None:
    def broken(tx: Transaction) -> None:
        tx.select("tiers", "no such sql")

    answers = gather(queue, path, [put("a"), broken])
    assert all(isinstance(answer, Unreachable) for answer in answers)
    assert names(queue) == set()
    assert queue.database.writer.run(put("b")) == "b"


def test_a_call_that_is_not_answered_in_time_is_dropped(queue: SqliteQueue, path: Path) -> None:
    impatient = Writer(path, queue.database.clock, queue.database.wakes, answer_s=0.05)
    with Held(path), pytest.raises(Unreachable, match=r"queue\.db\.main"):
        impatient.run(put("late"))
    impatient.close()
    assert names(queue) == set()


def test_threads_get_each_their_own_answer(queue: SqliteQueue) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda n: queue.submit(Submission("m", {"n": n}, (StageNeed("run"),))), range(200)))
    assert len({job.id for job in jobs}) == 200
    assert [job.inputs["n"] for job in jobs] == list(range(200))


def test_nobody_is_overtaken_at_the_turnstile(path: Path) -> None:
    path.touch()
    first, second = Turnstile(path), Turnstile(path)
    entered = threading.Event()

    def wait_for_turn() -> None:
        with second.turn():
            entered.set()

    with first.turn():
        waiting = threading.Thread(target=wait_for_turn)
        waiting.start()
        # Whoever waits for `main` holds `next`: a third comer cannot pass.
        wait_until(lambda: not _free(second._next, path))
        assert not entered.is_set()
    waiting.join(5)
    assert entered.is_set()
    first.close()
    first.close()
    second.close()


def _free(_: int, path: Path) -> bool:
    descriptor = os.open(f"{path}.next", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
