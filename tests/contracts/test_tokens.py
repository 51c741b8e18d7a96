from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.memory.queue import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.tokens import Grant, MemoryTokens, Role, TokenStore, token_store
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.token_contract import TokenContract


class TestTokensOfThisProcess(TokenContract):
    @pytest.fixture
    def tokens(self, clock: FakeClock) -> Iterator[TokenStore]:
        yield MemoryTokens(clock)


class TestTokensInMemory(TokenContract):
    @pytest.fixture
    def tokens(self, clock: FakeClock) -> Iterator[TokenStore]:
        yield token_store(MemoryQueue(clock=clock))


class TestTokensOnSqlite(TokenContract):
    @pytest.fixture
    def tokens(self, tmp_path: Path, clock: FakeClock) -> Iterator[TokenStore]:
        with closing(SqliteQueue(tmp_path / "queue.db", None, clock)) as queue:
            yield token_store(queue)


class TestTokensOnPostgres(TokenContract):
    @pytest.fixture
    def tokens(self, postgres_url: str, clock: FakeClock) -> Iterator[TokenStore]:
        with closing(PostgresQueue(postgres_url, None, clock)) as queue:
            yield token_store(queue)


def test_waiting_jobs_are_counted_by_tenant() -> None:
    queue = MemoryQueue()
    for tenant in ("acme", "acme", "acme", "other"):
        queue.submit(Submission("m", {}, (StageNeed("run"),), tenant=tenant))
    assert [queue.tokens.waiting("acme", most) for most in (1, 3, 9)] == [1, 3, 3]
    queue.claim(queue.hello(WorkerInfo("w", "box", 1)), 0, [Offer("0", "m", "v1", ("run",), 2)])
    assert queue.tokens.waiting("acme", 9) + queue.tokens.waiting("other", 9) == 2
    assert queue.tokens.waiting("nobody", 9) == 0


def test_the_file_of_a_queue_holds_no_secret(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "queue.db")) as queue:
        _, text = queue.tokens.create("shop", Grant(Role.SUBMIT))
        secret = text.split("_", 2)[2].encode()
        with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
            assert connection.execute("select count(*) from token").fetchone() == (1,)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
