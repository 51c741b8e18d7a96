"""Group commit: one writing connection per process and database.

Calls that wait at the same time are run by one thread and share one transaction, and so one fsync; each gets its own
answer, and one that fails takes only its own changes back. A call that finds nobody else at work, here or in another
process, commits in its caller's thread: that spares it two changes of thread, about 0.2 ms.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from modelrepo.errors import Unreachable
from modelrepo_runtime.queue.relational.transaction import Answer, Refused, Transaction
from modelrepo_runtime.queue.sqlite.database import identity, prepare, translated
from modelrepo_runtime.queue.sqlite.statements import SqliteStatements
from modelrepo_runtime.queue.sqlite.turnstile import Turnstile
from modelrepo_runtime.queue.sqlite.wake import WakeFolder

LARGEST_GROUP = 200
"""Calls in one transaction: bounds how long other processes wait for their turn."""


@dataclass(slots=True)
class _Call(Generic[Answer]):
    work: Callable[[Transaction], Answer | Refused[Any]]
    future: Future[Answer] = field(default_factory=Future)


class Writer:
    """Runs calls in the order they come, grouped."""

    def __init__(self, path: Path, clock: Callable[[], float], wakes: WakeFolder, answer_s: float = 30.0) -> None:
        self._path, self._clock, self._wakes, self._answer_s = path, clock, wakes, answer_s
        self._turnstile = Turnstile(path)
        try:
            self._connection = prepare(path, self._turnstile)
        except BaseException:
            self._turnstile.close()
            raise
        self._identity = identity(path)
        self._calls: deque[_Call[Any]] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._writing = threading.Lock()
        """Held by whoever uses the connection and the turnstile."""
        self._thread = threading.Thread(target=self._run, name=f"queue writer {path.name}", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Transaction], Answer | Refused[Any]]) -> Answer:
        """Run one call in a transaction and return its answer once that is on disk.

        Raises: what `work` raises; Unreachable.
        """
        self.follow()
        call: _Call[Answer] = _Call(work)
        try:
            if not self._run_at_once(call):
                self._hand_over(call)
            return call.future.result(self._answer_s)
        except FutureTimeoutError:
            call.future.cancel()
            raise Unreachable(
                f"queue {self._path} did not answer within {self._answer_s:g} s: another process holds"
                f" {self._path}.main; look for a stopped one"
            ) from None

    def follow(self) -> None:
        """Open what lies at the path now, where the file that was opened is not there any more.

        Raises: what `prepare` raises; the file from before stays open then.
        """
        if identity(self._path) == self._identity:
            return
        with self._writing:
            if self._closing or identity(self._path) == self._identity:
                return
            try:
                turnstile = Turnstile(self._path)
            except OSError as error:
                raise Unreachable(
                    f"queue {self._path} is not there any more: {error.strerror}; check its folder"
                ) from error
            try:
                connection = prepare(self._path, turnstile)
            except BaseException:
                turnstile.close()
                raise
            self._identity = identity(self._path)
            old, self._connection = self._connection, connection
            left, self._turnstile = self._turnstile, turnstile
            old.close()
            left.close()

    def _hand_over(self, call: _Call[Any]) -> None:
        with self._news:
            if self._closing:
                raise Unreachable(f"queue {self._path} is closed")
            self._calls.append(call)
            self._news.notify()

    def _run_at_once(self, call: _Call[Any]) -> bool:
        if not self._writing.acquire(blocking=False):
            return False
        try:
            if self._calls or self._closing or not self._turnstile.enter_at_once():
                return False
            try:
                answers, transaction = self._commit([call])
            finally:
                self._turnstile.leave()
        finally:
            self._writing.release()
        self._tell(answers, transaction)
        return True

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._calls and not self._closing:
                    self._news.wait()
                if not self._calls:
                    return
            with self._writing, self._turnstile.turn():
                with self._news:
                    group = [self._calls.popleft() for _ in range(min(len(self._calls), LARGEST_GROUP))]
                answers, transaction = self._commit([c for c in group if c.future.set_running_or_notify_cancel()])
            self._tell(answers, transaction)

    def _tell(self, answers: list[tuple[_Call[Any], Any]], transaction: Transaction) -> None:
        self._wakes.tell(transaction.ready_models, transaction.changed_jobs)
        for call, answer in answers:
            _answer(call, answer)

    def _commit(self, group: list[_Call[Any]]) -> tuple[list[tuple[_Call[Any], Any]], Transaction]:
        connection, statements = self._connection, SqliteStatements(self._connection)
        transaction = Transaction(statements, self._clock())
        try:
            with translated(self._path):
                connection.execute("begin immediate")
                alone = len(group) == 1
                answers = [(call, _attempt(connection, call, transaction, alone=alone)) for call in group]
                connection.execute("commit")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, it is every waiting caller's answer
            if connection.in_transaction:
                connection.execute("rollback")
            return [(call, Refused(error)) for call in group], Transaction(statements, transaction.now)
        return answers, transaction

    def close(self) -> None:
        """Finish what waits, then close the database inside the turnstile; closing twice is legal."""
        with self._news:
            if self._closing:
                return
            self._closing = True
            self._news.notify()
        self._thread.join()
        with self._writing, self._turnstile.turn():
            self._connection.close()
        self._turnstile.close()


def _attempt(connection: sqlite3.Connection, call: _Call[Any], transaction: Transaction, *, alone: bool) -> Any:
    if not alone:
        connection.execute("savepoint call")
    try:
        answer = call.work(transaction)
        transaction.end()
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to the caller, not to this thread
        transaction.forget()
        connection.execute("rollback" if alone else "rollback to call")
        if alone:
            connection.execute("begin immediate")
        else:
            connection.execute("release call")
        return Refused(error)
    if not alone:
        connection.execute("release call")
    return answer


def _answer(call: _Call[Any], answer: Any) -> None:
    try:
        if isinstance(answer, Refused):
            call.future.set_exception(answer.error)
        else:
            call.future.set_result(answer)
    except InvalidStateError:
        pass
