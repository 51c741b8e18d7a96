"""Running named statements on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from modelrepo_runtime.queue.relational.statements import statements_of
from modelrepo_runtime.queue.relational.transaction import Row


def texts() -> Mapping[str, str]:
    """Return every statement by name, as SQLite runs it."""
    return statements_of(__package__)


class SqliteStatements:
    """See Statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._texts = texts()

    def rows(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Row]:
        """See Statements."""
        text = f"{self._texts[name]} {tail}" if tail else self._texts[name]
        return self.connection.execute(text, values).fetchall()

    def tuples(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Sequence[Any]]:
        """See Statements."""
        cursor = self.connection.cursor()
        cursor.row_factory = None
        return cursor.execute(f"{self._texts[name]} {tail}" if tail else self._texts[name], values).fetchall()

    def run_many(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """See Statements."""
        self.connection.executemany(self._texts[name], rows)

    def each(self, name: str, rows: Sequence[Sequence[object]]) -> Sequence[Sequence[Sequence[Any]]]:
        """See Statements."""
        text, cursor = self._texts[name], self.connection.cursor()
        cursor.row_factory = None  # known by their place only
        return [cursor.execute(text, values).fetchall() for values in rows]

    def array(self, values: Sequence[object]) -> object:
        """See Statements."""
        return json.dumps(values)

    def among(self, column: str) -> str:
        """See Statements."""
        return f"{column} in (select value from json_each(?))"

    def held(self, table: str) -> str:  # noqa: ARG002
        """See Statements. One transaction writes at a time."""
        return ""
