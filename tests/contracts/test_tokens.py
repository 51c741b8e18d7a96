from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo_runtime.queue.memory.queue import MemoryQueue
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


def test_the_file_of_a_queue_holds_no_secret(tmp_path: Path) -> None:
    with closing(SqliteQueue(tmp_path / "queue.db")) as queue:
        _, text = queue.tokens.create("shop", Grant(Role.SUBMIT))
        secret = text.split("_", 2)[2].encode()
        with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
            assert connection.execute("select count(*) from token").fetchone() == (1,)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
