"""The JobQueue of a fleet, on PostgreSQL."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from modelrepo.errors import InvalidInput, StaleSession
from modelrepo_runtime.jobs import Claim, Job, Submission
from modelrepo_runtime.queue.port import ClaimCall
from modelrepo_runtime.queue.postgres import partitions
from modelrepo_runtime.queue.postgres.combining import Combiner
from modelrepo_runtime.queue.postgres.database import PostgresDatabase
from modelrepo_runtime.queue.postgres.feeding import Feeding
from modelrepo_runtime.queue.postgres.hinted import HintedStatements
from modelrepo_runtime.queue.postgres.hints import SWEEP_S, Hints
from modelrepo_runtime.queue.postgres.runner import Runner
from modelrepo_runtime.queue.relational import claiming, waiting
from modelrepo_runtime.queue.relational.queue import RelationalQueue
from modelrepo_runtime.queue.relational.transaction import Transaction
from modelrepo_runtime.queue.steps import check_submission
from modelrepo_runtime.timing import Timing

Answers = Sequence[tuple[Claim, ...] | StaleSession]
KEPT_S = 30 * partitions.DAY_S
"""Where no tier keeps its jobs longer, a day of jobs is dropped when the youngest of it is a day older than this."""
UPKEEP_S = 3600.0
FULL_S = 0.05
"""After claims that got all they asked for, nobody looks for so long whether there is anything, or anything due."""


class PostgresQueue(RelationalQueue):
    """See JobQueue. Any number of processes may open the same database; `modelrepo queue migrate` makes it."""

    def __init__(
        self, database: PostgresDatabase | str, timing: Timing | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self.database = PostgresDatabase(database, clock) if isinstance(database, str) else database
        super().__init__(self.database, timing or Timing())
        self.hints, self.feeding = Hints(), Feeding()
        self._claims: Combiner[ClaimCall, tuple[Claim, ...] | StaleSession] = Combiner(self._claim_together)
        self._submissions: Combiner[tuple[Submission, str | None], Job] = Combiner(self._submit_together)
        self._full: dict[tuple[str, ...], float] = {}
        """Models -> when it was last looked, where all claims since have got all they asked for."""
        self._swept = self._kept_up = time.monotonic()

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """See JobQueue. What comes at the same time for an account of a tenant shares a transaction."""
        check_submission(submission, idempotency_key)
        account = (submission.model, submission.tier, submission.tenant)
        (job,) = self._submissions.ask(account, [(submission, idempotency_key)])
        return job

    def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        """See JobQueue. Calls for the same models that come at the same time share a transaction."""
        for call in calls:
            if call.seq < 0:
                raise InvalidInput(f"cannot claim with sequence number {call.seq}: it must not be negative")
        shard = frozenset(offer.model for call in calls for offer in call.offers)
        return tuple(self._claims.ask(shard, calls))

    def _claim_together(self, calls: Sequence[ClaimCall]) -> Answers:
        models = sorted({offer.model for call in calls for offer in call.offers})
        shard, now = tuple(models), self.database.roughly_now()
        if not 0 <= now - self._full.get(shard, -math.inf) < FULL_S:
            answers = self._look(calls, models, now)
            if answers is not None:
                return answers
        answers = self.database.claim(models, lambda tx: self._claim_in(tx, calls))
        wanted = sum(offer.limit for call in calls for offer in call.offers)
        if sum(len(answer) for answer in answers if isinstance(answer, tuple)) < wanted:
            self._full.pop(shard, None)
        else:
            self._full.setdefault(shard, now)
        return answers

    def _look(self, calls: Sequence[ClaimCall], models: Sequence[str], now: float) -> Answers | None:
        """Move what is due; answer claims where nothing waits, so that polling writes nothing."""
        self._full.pop(tuple(models), None)
        outlook = self.database.peek(
            "claim_outlook", self.database.array(models), now, now + self.timing.longest_delay_s, self.hints.ages()
        )
        if outlook[0]["due"]:
            self.database.write(lambda tx: waiting.move_due(tx, self.timing.longest_delay_s))
        elif not outlook[0]["work"]:
            return self._known(calls)
        return None

    def _claim_in(self, tx: Transaction, calls: Sequence[ClaimCall]) -> Answers:
        return claiming.claim_all(self._hinted(tx), calls, self.timing, due=False)

    def _known(self, calls: Sequence[ClaimCall]) -> Answers | None:
        """Answer claims where nothing waits; None where leases are to be told again."""
        sessions = self.database.array([call.session.id for call in calls])
        rows = self.database.peek("claims_known", sessions, self.database.array([call.seq for call in calls]))
        if any(row["leased"] for row in rows):
            return None
        return [() if row["lives"] else claiming.ended(call.session.id) for row, call in zip(rows, calls, strict=True)]

    def _hinted(self, tx: Transaction) -> Transaction:
        assert isinstance(tx.statements, Runner)
        tx.statements = HintedStatements(tx.statements, self.hints, self.feeding)
        return tx

    def tend(self) -> None:
        """See JobQueue. Also lowers hints, makes partitions ahead and drops those that are past the retention."""
        super().tend()
        now = time.monotonic()
        if now - self._swept >= SWEEP_S:
            self._swept = now
            self.sweep_hints()
        if now - self._kept_up >= UPKEEP_S:
            self._kept_up = now
            self.database.make_partitions()
            kept_s = max([KEPT_S, *(tier.keep_jobs_s or 0.0 for tier in self.tiers())])
            self.database.drop_partitions(self.database.now() - kept_s - partitions.DAY_S)

    def sweep_hints(self) -> None:
        """Begin lanes earlier where rows have come in below their hints."""
        for by_age, name in ((False, "ready_first_tag"), (True, "ready_first_age")):
            marks = [(lane, *key) for (lane, aged), key in self.hints.all().items() if aged is by_age]
            if not marks:
                continue
            for found in self.database.read(lambda tx, name=name, marks=marks: tx.statements.each(name, marks)):  # type: ignore[misc]
                for lane, at, job in found:
                    self.hints.lower(lane, by_age, (at, job - 1))
