"""A look into an SQLite queue behind the adapter's back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from modelrepo_runtime.testing.queue_contract import Peek, Rows


def peek_at(path: Path) -> Peek:
    """Return how to count the rows of the database there, by a connection of its own."""

    def peek() -> Rows:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            counts = [
                connection.execute(f"select count(*) from {table}").fetchone()[0]
                for table in ("ready", "delayed", "lease", "done")
            ]
        return Rows(*counts)

    return peek
