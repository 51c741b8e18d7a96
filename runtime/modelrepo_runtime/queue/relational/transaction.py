"""What the queue's rules are written against: a database that runs named statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from modelrepo_runtime.queue.port import Waiter

Answer = TypeVar("Answer")
Error = TypeVar("Error", bound=Exception)


class Row(Protocol):
    """A row; its columns are found by name and by place."""

    def __getitem__(self, column: str | int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Statements(Protocol):
    """Runs named statements on one connection; `?` and `?1` stand for values."""

    def rows(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Row]:
        """Run a statement, with `tail` appended to its text, and return all of its rows."""

    def tuples(self, name: str, values: Sequence[object], tail: str = "") -> Sequence[Sequence[Any]]:
        """Do as `rows`, for less; columns are known by their place only."""

    def run_many(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once for each row of values."""

    def each(self, name: str, rows: Sequence[Sequence[object]]) -> Sequence[Sequence[Sequence[Any]]]:
        """Return what a query finds for each row of values, none of them null; in one round trip.

        Values are named `?1`, `?2`.. in such a query; columns of what it finds are known by their place only.
        """

    def array(self, values: Sequence[object]) -> object:
        """Return the one value that stands for a list in statements that take one."""

    def among(self, column: str) -> str:
        """Return the condition that a column's value is in a list, which is one `?`."""

    def held(self, table: str) -> str:
        """Return the clause, last in a statement, by which nobody else ends the rows read of a table."""


@dataclass(slots=True)
class Snapshot:
    """One consistent view of the queue. `now` is epoch seconds of the queue's clock."""

    statements: Statements
    now: float

    def rows(self, name: str, *values: object) -> Sequence[Row]:
        """Return the rows of a statement."""
        return self.statements.rows(name, values)

    def row(self, name: str, *values: object) -> Row | None:
        """Return the first row of a statement, None where there is none."""
        found = self.statements.rows(name, values)
        return found[0] if found else None

    def only(self, name: str, *values: object) -> Row:
        """Return the row of a statement that always has one."""
        return self.statements.rows(name, values)[0]

    def select(self, name: str, tail: str, *values: object) -> Sequence[Row]:
        """Return the rows of a view under a condition: `tail` follows the statement's text."""
        return self.statements.rows(name, values, tail)

    def array(self, values: Sequence[object]) -> object:
        """Return the one value that stands for a list in statements that take one."""
        return self.statements.array(values)


@dataclass(slots=True)
class Transaction(Snapshot):
    """What a call may use while it writes."""

    ready_models: set[str] = field(default_factory=set)
    """Models that got ready jobs; their waiters are told after the commit."""
    changed_jobs: set[str] = field(default_factory=set)
    put_off: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    """Statement -> its rows; see `later`."""
    sums: dict[tuple[str, tuple[object, ...]], float] = field(default_factory=dict)
    """(statement, all but the last value of its row) -> that value; see `later_sum`."""
    moves: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Counters that many transactions move -> by how much this one does; see `move_last`."""
    _mover: Callable[[Transaction, Mapping[tuple[str, ...], int]], None] | None = None

    def run(self, name: str, *values: object) -> None:
        """Run a statement for what it changes."""
        self.statements.rows(name, values)

    def run_many(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once for each row of values."""
        if rows:
            self.statements.run_many(name, rows)

    def later(self, name: str, *values: object) -> None:
        """Run a statement at the next `flush`, together with its like; a call's own are run before it is answered."""
        self.put_off.setdefault(name, []).append(values)

    def later_sum(self, name: str, key: tuple[object, ...], amount: float) -> None:
        """Run a statement at the next `flush`, once for a key, with the key and the sum of its amounts."""
        self.sums[name, key] = self.sums.get((name, key), 0.0) + amount

    def move_last(
        self,
        mover: Callable[[Transaction, Mapping[tuple[str, ...], int]], None],
        key: tuple[str, ...],
        by: int,
    ) -> None:
        """Move a counter at the end of the call: `mover` is told of all of them at once, to lock them in one order."""
        self.moves[key] = self.moves.get(key, 0) + by
        self._mover = mover

    def end(self) -> None:
        """Do what is left to do before the commit."""
        moves = {key: by for key, by in self.moves.items() if by}
        self.moves.clear()
        if self._mover is not None and moves:
            self._mover(self, moves)
        self.flush()

    def flush(self) -> None:
        """Run what was put off; before anything is read that it changes."""
        for (name, key), amount in self.sums.items():
            self.later(name, *key, amount)
        self.sums.clear()
        for name, rows in self.put_off.items():
            self.statements.run_many(name, rows)
        self.put_off.clear()

    def forget(self) -> None:
        """Drop what was put off by a call that failed."""
        self.put_off.clear()
        self.sums.clear()
        self.moves.clear()


@dataclass(frozen=True, slots=True)
class Refused(Generic[Error]):
    """An answer that is an error, given without taking back what the call wrote."""

    error: Error


class Database(Protocol):
    """Where the queue's rows are. All methods may be called from any thread."""

    url: str

    def write(
        self, work: Callable[[Transaction], Answer | Refused[Any]], *, alone: bool = True, model: str | None = None
    ) -> Answer:
        """Run `work` in a transaction and return its answer once that is on disk; it may be run more than once.

        Not `alone`: others of that kind may run at the same time, where the database can do that. They add rows, and
        change only rows that they have locked or find as they expect. With a `model`, which is not `alone` either,
        nobody claims jobs of that model meanwhile, and no other write that names it runs.

        Raises: what `work` raises, and keeps nothing; the error of a Refused, whose writes are kept; Unreachable.
        """

    def read(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """Run `work` on a view of its own. Raises: what `work` raises; Unreachable."""

    def waiter(self, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> Waiter:
        """Listen for ready jobs of these models and for changes of these jobs, looking every `poll_s` at least."""

    def close(self) -> None:
        """Let go of the database; closing twice is legal."""
