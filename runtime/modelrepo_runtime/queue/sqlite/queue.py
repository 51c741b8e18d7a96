"""The JobQueue of one box, on SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelrepo.errors import InvalidInput, StaleFence, Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Outcome, Status, Submission
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.port import (
    BeatReply,
    Deleted,
    Explanation,
    FinishReply,
    HistoryRow,
    JobFilter,
    Offer,
    Reaped,
    Session,
    SlotReport,
    Tier,
    Waiter,
    WorkerInfo,
    WorkerReport,
)
from modelrepo_runtime.queue.sqlite import claiming, finishing, fleet, operating, reading, submitting
from modelrepo_runtime.queue.sqlite.database import connect, identity, refuse_network, translated
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.wake import SocketWaiter, WakeFolder
from modelrepo_runtime.queue.sqlite.writer import Transaction, Writer
from modelrepo_runtime.queue.steps import SILENT_FORGOTTEN_S, check_submission, outcome_text
from modelrepo_runtime.timing import Timing

WORK_WAITING = sql("work_waiting")


class SqliteQueue:
    """See JobQueue. Any number of processes of one box may open the same file."""

    def __init__(self, path: Path, timing: Timing | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path = path.resolve()  # a link and its file would have a turnstile each
        self.url = sqlite_url(path)
        self.timing = timing or Timing.embedded()
        self._clock = clock
        with ExitStack() as undo, translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            refuse_network(self.path)
            self._wakes = WakeFolder(self.path)
            undo.callback(self._wakes.close)
            self._writer = Writer(self.path, clock, self._wakes)
            undo.callback(self._writer.close)
            self._reader, self._read_from = connect(self.path), identity(self.path)
            undo.pop_all()
        self._reading = threading.Lock()
        self._closed = False

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, translated(self.path):
            if self._closed:
                raise Unreachable(f"queue {self.path} is closed")
            if identity(self.path) != self._read_from:
                self._writer.follow()
                self._reader.close()
                self._reader, self._read_from = connect(self.path), identity(self.path)
            self._reader.execute("begin")
            try:
                yield self._reader
            finally:
                self._reader.execute("commit")

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """See JobQueue."""
        check_submission(submission, idempotency_key)

        def work(tx: Transaction) -> Job:
            return reading.get(tx.connection, submitting.submit(tx, submission, idempotency_key), tx.now)

        return self._writer.run(work)

    def get(self, job_id: str) -> Job:
        """See JobQueue."""
        with self._read() as connection:
            job = reading.get(connection, job_id, self._clock())
        if job.status is Status.QUEUED and job.deadline is not None and job.deadline <= self._clock():
            self.tend()
            with self._read() as connection:
                return reading.get(connection, job_id, self._clock())
        return job

    def list(self, where: JobFilter = JobFilter()) -> tuple[Job, ...]:  # noqa: B008 - frozen
        """See JobQueue."""
        with self._read() as connection:
            return reading.list_jobs(connection, where, self._clock())

    def cancel(self, job_id: str) -> Job:
        """See JobQueue."""

        def work(tx: Transaction) -> Job:
            operating.cancel(tx, job_id)
            tx.flush()
            return reading.get(tx.connection, job_id, tx.now)

        return self._writer.run(work)

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        """See JobQueue."""
        return self._writer.run(lambda tx: operating.retry(tx, which, force=force, dry_run=dry_run))

    def delete(self, job_id: str) -> Deleted:
        """See JobQueue."""
        return self._writer.run(lambda tx: operating.delete(tx, job_id))

    def hello(self, info: WorkerInfo) -> Session:
        """See JobQueue."""
        return Session(self._writer.run(lambda tx: fleet.hello(tx, info, self.timing)))

    def goodbye(self, session: Session) -> None:
        """See JobQueue."""
        self._writer.run(lambda tx: fleet.goodbye(tx, session.id, self.timing))

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """See JobQueue. Writes nothing where nothing waits, so that polling is cheap."""
        if seq < 0:
            raise InvalidInput(f"cannot claim with sequence number {seq}: it must not be negative")
        models = json.dumps([offer.model for offer in offers])
        with self._read() as connection:
            now = self._clock()
            values = (models, now, session.id, seq, now + self.timing.longest_delay_s)
            waiting = connection.execute(WORK_WAITING, values).fetchone()[0]
            if not waiting:
                claiming.holder_of(connection, session.id, seq)
                return ()
        return self._writer.run(lambda tx: claiming.claim(tx, session.id, seq, offers, self.timing))

    def finish(
        self, session: Session, job_id: str, fence: Fence, outcome: Outcome, *, then: Offer | None = None
    ) -> FinishReply:
        """See JobQueue."""
        call = finishing.Finish(session.id, job_id, fence, outcome, outcome_text(outcome), then)
        return self._writer.run(lambda tx: finishing.finish(tx, call, self.timing))

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        """See JobQueue."""
        calls = [
            finishing.Finish(session.id, job, fence, outcome, outcome_text(outcome)) for job, fence, outcome in ends
        ]
        return self._writer.run(lambda tx: finishing.finish_all(tx, calls, self.timing))

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        """See JobQueue."""
        return self.finish(session, job_id, fence, Outcome(cause, counted=False)).status

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """See JobQueue."""
        self._writer.run(lambda tx: operating.progress(tx, job_id, fence, fraction, message))

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """See JobQueue."""
        return self._writer.run(lambda tx: fleet.beat(tx, session.id, held, slots, self.timing))

    def beats(self) -> Mapping[str, int]:
        """See JobQueue."""
        with self._read() as connection:
            rows = connection.execute(sql("beats_of_holders")).fetchall()
        return {row[0]: -1 if row[1] is None else row[1] for row in rows}

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """See JobQueue."""
        return self._writer.run(lambda tx: fleet.expire_session(tx, session_id, beat, self.timing))

    def tend(self) -> None:
        """See JobQueue."""

        def work(tx: Transaction) -> None:
            operating.tend(tx, self.timing)
            fleet.forget_silent(tx, tx.now - SILENT_FORGOTTEN_S)

        self._writer.run(work)

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """See JobQueue."""
        with self._read() as connection:
            return operating.pinned_waiting(connection, self._clock(), self.timing)

    def restart_pinned(self, model: str, version: str) -> int:
        """See JobQueue."""
        return self._writer.run(lambda tx: operating.restart_pinned(tx, model, version))

    def fleet(self) -> tuple[WorkerReport, ...]:
        """See JobQueue."""
        with self._read() as connection:
            return fleet.fleet(connection, self._clock())

    def take_turn(self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float) -> bool:
        """See JobQueue."""
        return self._writer.run(lambda tx: fleet.take_turn(tx, model, slot_key, slots_total, max_unavailable, ttl_s))

    def renew_turn(self, model: str, slot_key: str, ttl_s: float) -> bool:
        """See JobQueue."""
        return self._writer.run(lambda tx: fleet.renew_turn(tx, model, slot_key, ttl_s))

    def end_turn(self, model: str, slot_key: str) -> None:
        """See JobQueue."""
        self._writer.run(lambda tx: tx.connection.execute(sql("turn_delete"), (model, slot_key)) and None)

    def tiers(self) -> tuple[Tier, ...]:
        """See JobQueue."""
        with self._read() as connection:
            return reading.tiers(connection)

    def set_tier(self, name: str, *, slo_s: float | None = None, allowed_miss: float | None = None) -> Tier:
        """See JobQueue."""
        return self._writer.run(lambda tx: operating.set_tier(tx, name, slo_s, allowed_miss))

    def set_default_tier(self, name: str) -> None:
        """See JobQueue."""
        self._writer.run(lambda tx: operating.set_default_tier(tx, name))

    def explain(self, job_id: str) -> Explanation:
        """See JobQueue."""
        with self._read() as connection:
            return reading.explain_job(connection, job_id, self._clock(), self.timing)

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        """See JobQueue."""
        with self._read() as connection:
            return reading.history(connection, job_id)

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """See JobQueue."""
        return SocketWaiter(self._wakes, models, jobs, self.timing.queue_poll_s)

    def close(self) -> None:
        """See JobQueue."""
        with self._reading:
            if self._closed:
                return
            self._closed = True
            self._reader.close()
        self._writer.close()
        self._wakes.close()
