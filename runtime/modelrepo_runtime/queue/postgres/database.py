"""Transactions on PostgreSQL: alone or side by side, retried where they met."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from modelrepo.errors import Unreachable
from modelrepo_runtime.queue.port import Waiter
from modelrepo_runtime.queue.postgres import migrating, partitions
from modelrepo_runtime.queue.postgres.connecting import PLANNING, TIMEOUTS, connect, shown
from modelrepo_runtime.queue.postgres.pool import Pool
from modelrepo_runtime.queue.postgres.runner import Catalog, Row, Runner
from modelrepo_runtime.queue.postgres.statements import array
from modelrepo_runtime.queue.postgres.translating import Collision, Dropped, NoPartition, translated
from modelrepo_runtime.queue.postgres.wire import Wire
from modelrepo_runtime.queue.relational.statements import statements_of
from modelrepo_runtime.queue.relational.transaction import Answer, Refused, Snapshot, Transaction

POOL_SIZE = 12
MOST_TRIES = 6
RETRY_WITHIN_S = 0.02
_CLOCK = "select extract(epoch from clock_timestamp())::double precision"
_ALL, _SHARD = 0x6D72_0000, 0x6D72_0001
"""First keys of advisory locks: of the whole queue, and of one model."""
ALONE = f"begin; select pg_advisory_xact_lock({_ALL}, 0); {_CLOCK}"
TOGETHER = f"begin; select pg_advisory_xact_lock_shared({_ALL}, 0); {_CLOCK}"
READING = (
    "begin isolation level repeatable read read only; set local statement_timeout = '30s';"
    f" set local idle_in_transaction_session_timeout = '60s'; {_CLOCK}"
)
"""Who reads holds nobody up: a hundred thousand rows may take their time to be made into objects."""
_TYPES = """
select relname, attname, format_type(atttypid, atttypmod)
from pg_attribute join pg_class on pg_class.oid = attrelid join pg_namespace on pg_namespace.oid = relnamespace
where nspname = current_schema() and relkind in ('r', 'p') and attnum > 0 and not attisdropped
"""


class PostgresDatabase:
    """See Database. Locks are their own statements, before anything is read: what is read then is what others left.

    A write alone holds the queue's lock, all others share it. Claims also hold the lock of each of their models.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self.url = shown(url)
        self._address, self._clock = url, clock
        self._pool = Pool(self.url, self._open, POOL_SIZE)
        self._wire = Wire(self.url, lambda: connect(url, {}))
        with translated(self.url), connect(url, TIMEOUTS) as connection:
            migrating.check(connection, self.url)
            types = {(table, column): kind for table, column, kind in connection.execute(_TYPES).fetchall()}
        self._ahead_s = time.time() - time.monotonic()
        self.catalog = Catalog(statements_of(__package__), types)

    def _open(self) -> Runner:
        return Runner(connect(self._address, {**TIMEOUTS, **PLANNING}), self.catalog)

    def write(
        self, work: Callable[[Transaction], Answer | Refused[Any]], *, alone: bool = True, model: str | None = None
    ) -> Answer:
        """See Database."""
        if model is not None:
            return self.claim([model], work)
        return self.run(work, ALONE if alone else TOGETHER)

    def claim(self, models: Sequence[str], work: Callable[[Transaction], Answer | Refused[Any]]) -> Answer:
        """Run `work` as the only one that claims jobs of these models."""
        shards = sorted({zlib.crc32(model.encode()) - 2**31 for model in models})
        locks = "".join(f"select pg_advisory_xact_lock({_SHARD}, {shard}); " for shard in shards)
        return self.run(work, TOGETHER.replace(_CLOCK, locks + _CLOCK))

    def run(self, work: Callable[[Transaction], Answer | Refused[Any]], begin: str) -> Answer:
        """Run `work` after the statements `begin`; again where it met another, or its day had no partition."""
        for tries in range(1, MOST_TRIES + 1):
            try:
                answer, transaction = self._once(work, begin)
            except (Collision, Dropped) as error:
                if tries == MOST_TRIES:
                    raise Unreachable(
                        f"queue {self.url} did not answer: {tries} tries met other calls ({error}); try again"
                    ) from error
                if isinstance(error, Collision):
                    time.sleep(random.uniform(0, RETRY_WITHIN_S) * tries)
            except NoPartition:
                self.make_partitions()
            else:
                self._wire.tell(transaction.ready_models, transaction.changed_jobs)
                if isinstance(answer, Refused):
                    raise answer.error
                return answer
        raise Unreachable(f"queue {self.url} could not make a partition for today; look at the server's log")

    def _once(
        self, work: Callable[[Transaction], Answer | Refused[Any]], begin: str
    ) -> tuple[Answer | Refused[Any], Transaction]:
        with self._pool.taken() as runner:
            transaction = Transaction(runner, self._begun(runner, begin))
            answer = work(transaction)
            transaction.end()
            runner.commit()
            return answer, transaction

    def peek(self, name: str, *values: object) -> Sequence[Row]:
        """Run one statement by itself, which sees what is committed now."""
        for _ in range(MOST_TRIES):
            try:
                with self._pool.taken() as runner:
                    return runner.alone(name, values)
            except Dropped:
                continue
        raise Unreachable(f"queue {self.url} did not answer: it ended {MOST_TRIES} connections; look at its log")

    @staticmethod
    def array(values: Sequence[object]) -> str:
        """Return the one value that stands for a list in statements that take one."""
        return array(values)

    def roughly_now(self) -> float:
        """Return the queue's clock as far as this process can tell without asking."""
        return self._clock() if self._clock is not None else time.monotonic() + self._ahead_s

    def read(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """See Database."""
        for _ in range(MOST_TRIES):
            try:
                with self._pool.taken() as runner:
                    answer = work(Snapshot(runner, self._begun(runner, READING)))
                    runner.simple("commit")
                    return answer
            except (Collision, Dropped):
                continue
        raise Unreachable(f"queue {self.url} did not answer: it ended {MOST_TRIES} connections; look at its log")

    def _begun(self, runner: Runner, begin: str) -> float:
        """Start a transaction; return the moment that it works with."""
        at = runner.begin(begin).get_value(0, 0)
        assert at is not None
        if self._clock is not None:
            return self._clock()
        now = float(at)
        self._ahead_s = now - time.monotonic()
        return now

    def now(self) -> float:
        """Return the queue's clock."""
        return self.read(lambda tx: tx.now)

    def make_partitions(self) -> None:
        """Make the partitions of today and the days to come, where they are missing."""
        now = self.now()
        with translated(self.url), connect(self._address, {"lock_timeout": "5s"}) as connection:
            missing = partitions.missing_days(connection, now)
            if missing:
                partitions.make(connection, missing)

    def drop_partitions(self, before: float) -> list[int]:
        """Drop the days that had ended by `before` and in which nothing waits or runs."""
        with translated(self.url), connect(self._address, {"lock_timeout": "5s"}) as connection:
            return partitions.drop_before(connection, before)

    def waiter(self, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> Waiter:
        """See Database."""
        self._wire.listen()
        return self._wire.news.waiter(models, jobs, poll_s)

    def close(self) -> None:
        """See Database."""
        self._wire.close()
        self._pool.close()
