"""The JobQueue, on any database that runs its statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelrepo.errors import InvalidInput, StaleFence, StaleSession
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Json, Outcome, Status, Submission
from modelrepo_runtime.queue.port import (
    ActiveSeen,
    BeatCall,
    BeatReply,
    ClaimCall,
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
from modelrepo_runtime.queue.relational import (
    breaking,
    claiming,
    desired,
    explaining,
    finishing,
    fleet,
    operating,
    pinning,
    reading,
    staging,
    submitting,
    watching,
)
from modelrepo_runtime.queue.relational.forecasting import Forecasts
from modelrepo_runtime.queue.relational.memory import Admissions
from modelrepo_runtime.queue.relational.operator_calls import OperatorCalls
from modelrepo_runtime.queue.relational.order_calls import OrderCalls
from modelrepo_runtime.queue.relational.state_calls import StateCalls
from modelrepo_runtime.queue.relational.swaps import SwapCalls
from modelrepo_runtime.queue.relational.tokens import RelationalTokens
from modelrepo_runtime.queue.relational.transaction import Database, Snapshot, Transaction
from modelrepo_runtime.queue.reports import FailingVersion, QueueReport, WorkerExplanation
from modelrepo_runtime.queue.steps import SILENT_FORGOTTEN_S, check_submission, outcome_text
from modelrepo_runtime.queue.tiers import TierFigures
from modelrepo_runtime.queue.tokens import TokenStore
from modelrepo_runtime.timing import Timing


class RelationalQueue(OperatorCalls, OrderCalls, StateCalls, SwapCalls):
    """See JobQueue."""

    def __init__(self, database: Database, timing: Timing) -> None:
        self.url = database.url
        self.timing = timing
        self.tokens: TokenStore = RelationalTokens(database)
        self._database = database
        self._forecasts = Forecasts(timing)
        self._admissions = Admissions()
        self._lately_full: set[frozenset[str]] = set()
        """Models of which the last claim got all it asked for: the next one is worth a write without a look."""

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """See JobQueue."""
        check_submission(submission, idempotency_key)
        (job,) = self._submit_together([(submission, idempotency_key)])
        return job

    def _submit_together(self, calls: Sequence[tuple[Submission, str | None]]) -> Sequence[Job]:
        """Add jobs in one transaction, with their idempotency keys."""

        def work(tx: Transaction) -> Sequence[Job]:
            names = [submitting.submit(tx, submission, key, known, self._admissions) for submission, key in calls]
            return [reading.get(tx, name, lambda _: known) for name in names]

        known = self._forecasts.before_write(self._database)
        return self._database.write(work, alone=False)

    def get(self, job_id: str) -> Job:
        """See JobQueue."""

        def work(tx: Snapshot) -> tuple[Job, bool]:
            job = reading.get(tx, job_id, self._forecasts.at)
            return job, job.status is Status.QUEUED and job.deadline is not None and job.deadline <= tx.now

        job, late = self._database.read(work)
        if not late:
            return job
        self.tend()
        return self._database.read(lambda tx: reading.get(tx, job_id, self._forecasts.at))

    def list(self, where: JobFilter = JobFilter()) -> tuple[Job, ...]:  # noqa: B008 - frozen
        """See JobQueue."""
        return self._database.read(lambda tx: reading.list_jobs(tx, where, self._forecasts.at))

    def faces(self, job_ids: Sequence[str]) -> Mapping[str, tuple[object, ...]]:
        """Return what differs whenever a job looks different to its user; much cheaper than `list`."""
        return self._database.read(lambda tx: watching.faces(tx, job_ids))

    def cancel(self, job_id: str) -> Job:
        """See JobQueue."""

        def work(tx: Transaction) -> Job:
            operating.cancel(tx, job_id)
            tx.flush()
            return reading.get(tx, job_id)

        row = self._database.read(lambda tx: reading.view(tx, job_id))
        return self._database.write(work, alone=False, model=row["model"])

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        """See JobQueue."""
        return self._database.write(lambda tx: operating.retry(tx, which, force=force, dry_run=dry_run))

    def delete(self, job_id: str) -> Deleted:
        """See JobQueue."""
        while True:  # until it stays what it was found to be: what has ended may be sent back meanwhile, and end again
            row = self._database.read(lambda tx: reading.view(tx, job_id))
            if row["status"] is not None:
                deleted = self._database.write(lambda tx: operating.delete_ended(tx, job_id), alone=False)
            else:
                waits = row["model"]
                deleted = self._database.write(
                    lambda tx: operating.delete_waiting(tx, job_id), alone=False, model=waits
                )
            if deleted is not None:
                return deleted

    def hello(self, info: WorkerInfo) -> Session:
        """See JobQueue."""
        return Session(self._database.write(lambda tx: fleet.hello(tx, info, self.timing), alone=False))

    def goodbye(self, session: Session) -> None:
        """See JobQueue."""
        self._database.write(lambda tx: fleet.goodbye(tx, session.id, self.timing))

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """See JobQueue."""
        (answer,) = self.claim_all((ClaimCall(session, seq, offers),))
        if isinstance(answer, StaleSession):
            raise answer
        return answer

    def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        """See JobQueue. Writes nothing where nothing waits, so that polling is cheap."""
        for call in calls:
            if call.seq < 0:
                raise InvalidInput(f"cannot claim with sequence number {call.seq}: it must not be negative")
        models = frozenset(offer.model for call in calls for offer in call.offers)
        if models not in self._lately_full:
            known = self._database.read(lambda tx: claiming.answers_where_nothing_waits(tx, calls, self.timing))
            if known is not None:
                return known
        answers = self._database.write(lambda tx: claiming.claim_all(tx, calls, self.timing))
        wanted = sum(offer.limit for call in calls for offer in call.offers)
        if not 0 < wanted <= sum(len(answer) for answer in answers if isinstance(answer, tuple)):
            self._lately_full.discard(models)
        else:
            self._lately_full.add(models)
        return answers

    def start(self, session: Session, job_id: str, fence: Fence) -> None:
        """See JobQueue."""
        self._database.write(lambda tx: staging.start(tx, session.id, job_id, fence), alone=False)

    def finish(
        self,
        session: Session,
        job_id: str,
        fence: Fence,
        outcome: Outcome,
        *,
        then: Offer | None = None,
        start: tuple[str, Fence] | None = None,
    ) -> FinishReply:
        """See JobQueue."""
        call = finishing.Finish(session.id, job_id, fence, outcome, outcome_text(outcome), then, start)
        return self._database.write(lambda tx: finishing.finish(tx, call, self.timing, self._admissions), alone=False)

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        """See JobQueue."""
        calls = [
            finishing.Finish(session.id, job, fence, outcome, outcome_text(outcome)) for job, fence, outcome in ends
        ]
        return self._database.write(
            lambda tx: finishing.finish_all(tx, calls, self.timing, self._admissions), alone=False
        )

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        """See JobQueue."""
        return self.finish(session, job_id, fence, Outcome(cause, counted=False)).status

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """See JobQueue."""
        self._database.write(lambda tx: operating.progress(tx, job_id, fence, fraction, message), alone=False)

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """See JobQueue."""
        (answer,) = self.beat_all((BeatCall(session, held, slots),))
        if isinstance(answer, StaleSession):
            raise answer
        return answer

    def beat_all(self, calls: Sequence[BeatCall]) -> tuple[BeatReply | StaleSession, ...]:
        """See JobQueue."""
        return self._database.write(lambda tx: fleet.beat_all(tx, calls, self.timing), alone=False)

    def beats(self) -> Mapping[str, int]:
        """See JobQueue."""
        rows = self._database.read(lambda tx: tx.rows("beats_of_holders"))
        return {row[0]: -1 if row[1] is None else row[1] for row in rows}

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """See JobQueue."""
        return self._database.write(lambda tx: fleet.expire_session(tx, session_id, beat, self.timing))

    def tend(self) -> None:
        """See JobQueue."""

        def work(tx: Transaction) -> None:
            operating.tend(tx, self.timing)
            fleet.forget_silent(tx, tx.now - SILENT_FORGOTTEN_S)

        self._database.write(work)

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """See JobQueue."""
        return self._database.read(lambda tx: pinning.waiting(tx, self.timing))

    def restart_pinned(self, model: str, version: str) -> int:
        """See JobQueue."""
        return self._database.write(lambda tx: pinning.restart(tx, model, version, self.timing))

    def fleet(self) -> tuple[WorkerReport, ...]:
        """See JobQueue."""
        return self._database.read(lambda tx: fleet.fleet(tx, self.timing))

    def slots_serving(self, model: str) -> int:
        """See JobQueue."""
        return self._database.read(lambda tx: fleet.slots_serving(tx, model, self.timing))

    def queue_report(self, model: str | None = None, tier: str | None = None) -> QueueReport:
        """See JobQueue."""
        return self._database.read(lambda tx: explaining.queue_report(tx, self.timing, model, tier))

    def explain_worker(self, worker: str) -> WorkerExplanation:
        """See JobQueue."""
        return self._database.read(lambda tx: explaining.explain_worker_now(tx, worker, self.timing))

    def failing_versions(self) -> tuple[FailingVersion, ...]:
        """See JobQueue."""
        return self._database.read(breaking.failing)

    def reset_version(self, model: str, version: str) -> bool:
        """See JobQueue."""
        return self._database.write(lambda tx: breaking.close(tx, model, version))

    def active_seen(self, models: Sequence[str]) -> tuple[ActiveSeen, ...]:
        """See JobQueue."""
        return self._database.read(lambda tx: desired.active_seen(tx, models))

    def see_active(self, model: str, after_seq: int, body: Mapping[str, Json]) -> bool:
        """See JobQueue."""
        return self._database.write(lambda tx: desired.see_active(tx, model, after_seq, body))

    def tiers(self) -> tuple[Tier, ...]:
        """See JobQueue."""
        return self._database.read(reading.tiers)

    def set_tier(
        self,
        name: str,
        *,
        slo_s: float | None = None,
        allowed_miss: float | None = None,
        refuse_late: bool | None = None,
        keep_files_s: float | None = None,
        keep_jobs_s: float | None = None,
    ) -> Tier:
        """See JobQueue."""
        figures = TierFigures(slo_s, allowed_miss, refuse_late, keep_files_s, keep_jobs_s)
        return self._database.write(lambda tx: operating.set_tier(tx, name, figures))

    def set_default_tier(self, name: str) -> None:
        """See JobQueue."""
        self._database.write(lambda tx: operating.set_default_tier(tx, name))

    def explain(self, job_id: str) -> Explanation:
        """See JobQueue."""
        return self._database.read(lambda tx: explaining.explain_job(tx, job_id, self.timing, self._forecasts.at))

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        """See JobQueue."""
        return self._database.read(lambda tx: reading.history(tx, job_id))

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """See JobQueue."""
        return self._database.waiter(models, jobs, self.timing.queue_poll_s)

    def close(self) -> None:
        """See JobQueue."""
        self._database.close()
