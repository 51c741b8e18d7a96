"""The statements of a claim, from the low-water hint of each lane on and with what is in `again`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from modelrepo_runtime.queue.postgres.feeding import Feeding
from modelrepo_runtime.queue.postgres.hints import BEFORE_ALL, Hints, Key
from modelrepo_runtime.queue.postgres.runner import Runner

TAG, JOB, ENQUEUED = 1, 2, 3
"""Places in a waiting row."""
_BY_AGE = {"ready_by_tag": False, "ready_ages": True, "ready_by_age": True}


class HintedStatements:
    """See Statements; for one transaction."""

    def __init__(self, runner: Runner, hints: Hints, feeding: Feeding) -> None:
        self._runner, self._hints, self._feeding = runner, hints, feeding
        self._come_again: set[int] = set()
        self._entered: dict[int, Key] = {}
        """Before the oldest row of each lane whose head was read: by age, nothing deleted is passed a second time."""
        self._over: set[int] = set()
        """Lanes of jobs that stand back: who is less far ahead comes in before what was claimed, so none has a hint."""

    def rows(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Any]:
        """See Statements."""
        if name == "slots_feeding":
            return self._feeding.rows(tuple(values[:3]), lambda: self._runner.rows(name, values, tail))
        if name != "lane_heads":
            return self._runner.rows(name, values, tail)
        found = self._runner.rows("lane_heads_from", (*values, self._hints.ages()), tail)
        for row in found:
            if row["come_again"] is not None:
                self._come_again.add(row["id"])
            if row["over"]:
                self._over.add(row["id"])
            if row["entered"] is not None:
                self._entered[row["id"]] = row["entered"], -1
                self._hints.saw(row["id"], True, (row["entered"], -1))
        return found

    def tuples(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Sequence[Any]]:
        """See Statements."""
        return self._runner.tuples(name, values, tail)

    def each(self, name: str, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """See Statements."""
        by_age = _BY_AGE.get(name)
        if by_age is None:
            return self._runner.each(name, rows)
        found: list[Sequence[Any]] = [*self._runner.each(name, [self._from_hint(row, by_age) for row in rows])]
        if not by_age:
            for (lane, *after, _), some in zip(rows, found, strict=True):
                if some and after[0] == -math.inf and lane not in self._over:
                    self._hints.saw(lane, False, (some[0][TAG], some[0][JOB] - 1))
        again = [place for place, row in enumerate(rows) if row[0] in self._come_again]
        if again:
            for place, some in zip(again, self._runner.each(f"{name}_again", [rows[p] for p in again]), strict=True):
                found[place] = _merged(found[place], some, by_age, rows[place][-1])
        return found

    def _from_hint(self, row: Sequence[Any], by_age: bool) -> tuple[Any, ...]:
        lane, key, job, count = row
        at, after = max((key, job), self._hints.start(lane, by_age))
        if by_age:
            at, after = max((at, after), self._entered.get(lane, BEFORE_ALL))
        return lane, at, after, count

    def run_many(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """See Statements."""
        self._runner.run_many(name, rows)

    def array(self, values: Sequence[object]) -> object:
        """See Statements."""
        return self._runner.array(values)

    def among(self, column: str) -> str:
        """See Statements."""
        return self._runner.among(column)

    def held(self, table: str) -> str:
        """See Statements."""
        return self._runner.held(table)


def _merged(ready: Sequence[Any], again: Sequence[Any], by_age: bool, count: int) -> list[Any]:
    """Put both in order; a row that is in both is one."""
    rows = {row[JOB]: row for row in (*again, *ready)}
    place = ENQUEUED if by_age else TAG

    def key(row: Any) -> Key:
        return row[place], row[JOB]

    return sorted(rows.values(), key=key)[:count]
