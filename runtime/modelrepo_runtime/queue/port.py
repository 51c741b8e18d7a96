"""The JobQueue port: every call that submitters, workers and operators make, with what each one guarantees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from modelrepo.errors import StaleFence, StaleSession
from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Json, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.fleet_events import FleetEvents
from modelrepo_runtime.queue.order_settings import OrderSettings
from modelrepo_runtime.queue.orders import Order, OrderDone, Orders
from modelrepo_runtime.queue.outbox import Outbox
from modelrepo_runtime.queue.reports import Reports
from modelrepo_runtime.queue.states import States
from modelrepo_runtime.queue.swaps import Swaps
from modelrepo_runtime.remote.connection import Interrupt


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who a worker process is."""

    name: str
    host: str
    pid: int
    cluster: str = "local"
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One life of a worker process, from `hello` to `goodbye` or its loss."""

    id: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a slot would run now."""

    slot: str
    model: str
    version: str
    stages: tuple[str, ...]
    """Names of the stages that this slot serves."""
    limit: int = 1
    plan: tuple[StageNeed, ...] = ()
    """All stages of this version in order. A job that starts here and asked for no version follows this plan instead of
    the one it was submitted with. Empty: it keeps its own."""
    staged: bool = False
    """True: the slot still runs another job; a claim only lets it fetch this one's inputs until `start`."""
    accelerator: str | None = None
    """What kind of device it runs on, such as `NVIDIA H100`; learnt times are kept by it. None: the CPU."""
    warm: bool = True
    """False: the slot would have to load this version first."""
    room: MemoryRoom = ANY_ROOM
    """The memory that a job may take there."""


@dataclass(frozen=True, slots=True)
class FinishReply:
    """What became of a job by a finish, and the next claim where `then` brought one."""

    status: Status
    next: Claim | None = None
    started: bool = False
    """True: the staged job of `start` has begun."""


@dataclass(frozen=True, slots=True)
class SlotReport:
    """What a slot says of itself with each beat."""

    slot: str
    state: str
    """open, cordoned or refused."""
    model: str | None = None
    version: str | None = None
    digest: str | None = None
    generation: int | None = None
    incoming: Mapping[str, Json] | None = None
    """`{"version": .., "phase": ..}` while a swap is under way."""
    reason: str | None = None
    deadline: float | None = None
    next_action: str | None = None
    job_id: str | None = None
    device: str | None = None
    plan: str | None = None
    phases: Mapping[str, float] | None = None
    on: tuple[str, ...] = ("cpu", "gpu")
    """Which kinds of stages it runs."""
    accelerator: str | None = None
    also: tuple[str, ...] = ()
    """Further versions that it holds a child of, and serves as well as `version`."""
    accelerator_bytes: int | None = None
    """Memory of the smallest of its devices; None: it has none, or does not know."""
    host_bytes: int | None = None
    """Memory that its box has for a job at most."""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A session as last heard of."""

    info: WorkerInfo
    session: str
    last_beat_age_s: float
    slots: tuple[SlotReport, ...]
    lease_s: float = 6.0
    """A silence that is longer ends its leases: it is taken for lost."""

    @property
    def live(self) -> bool:
        """Whether it was heard of within a lease."""
        return self.last_beat_age_s <= self.lease_s


@dataclass(frozen=True, slots=True)
class BeatReply:
    """What a worker must know of the jobs that it holds, and what is wanted of it."""

    cancelled: frozenset[str]
    """Job ids to be stopped; each then wants a finish with cause `cancelled`."""
    lost: frozenset[tuple[str, Fence]]
    """Held, but no longer leased: stop at once, no finish will be accepted."""
    orders: tuple[Order, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model -> versions that the worker's cluster serves or loads for a GPU stage: its CPU slots prepare for these."""


@dataclass(frozen=True, slots=True)
class ClaimCall:
    """One `claim` of many that share a transaction."""

    session: Session
    seq: int
    offers: Sequence[Offer]


@dataclass(frozen=True, slots=True)
class BeatCall:
    """One `beat` of many that share a transaction."""

    session: Session
    held: Sequence[tuple[str, Fence]]
    slots: Sequence[SlotReport]


@dataclass(frozen=True, slots=True)
class Reaped:
    """A lease taken back from a lost session, and what became of its job."""

    job_id: str
    session: str
    status: Status


@dataclass(frozen=True, slots=True)
class Tier:
    """A class of users and its longest acceptable wait."""

    name: str
    slo_s: float
    allowed_miss: float
    """Part of its jobs that may wait longer, 0..1."""
    default: bool = False
    refuse_late: bool = False
    """True: a submission whose predicted start would miss the SLO is refused with the figure."""
    keep_files_s: float | None = None
    """Age at which files of its ended jobs go; None: as long as those of all."""
    keep_jobs_s: float | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; every field that is set must hold. Newest first."""

    status: Status | None = None
    model: str | None = None
    tier: str | None = None
    tenant: str | None = None
    older_than_s: float | None = None
    """Created at least that long ago."""
    limit: int = 100
    ended: bool | None = None
    """True: only jobs that have ended; False: only those that wait or run."""
    before: str | None = None
    """Only those that come after this job in the list: the next page of it."""
    ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: for people in `lines`, for programs in `facts`."""

    job_id: str
    status: Status
    lines: tuple[str, ...]
    facts: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion leaves to be removed from the JobStore."""

    job_id: str
    created_at: float
    files: tuple[str, ...]
    """Keys of uploads that no other job refers to."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One thing that happened to a job: an attempt's end, or a write that was refused."""

    job_id: str
    event: str
    """`attempt`, `refused` (a stale finish), `retried` (by hand), `refunded` (back from a failed
    end that was its version's fault), `restarted`, or an end without a worker: `cancelled`, `expired`."""
    at: float
    cause: str | None = None
    counted: bool = True
    stage: str | None = None
    attempt: int = 0
    fence: Fence | None = None
    session: str | None = None
    slot: str | None = None
    """`<worker>/<slot>`."""
    version: str | None = None
    claimed_at: float | None = None


@dataclass(frozen=True, slots=True)
class ActiveSeen:
    """What a gateway last read of a model's active file; `seq` grows by one with each change."""

    model: str
    seq: int
    body: Mapping[str, Json]


class Waiter(Protocol):
    """Waits for news. A wake-up may be spurious, and none is owed: always look at the queue afterwards."""

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as there may be news, False after min(timeout_s, the poll interval)."""

    def wake(self) -> None:
        """End a `wait` of another thread, or the next one, at once."""

    def close(self) -> None:
        """Stop listening; closing twice is legal."""


LONGEST_POLL_S = 50.0
"""Below the minute after which proxies give up a request that is silent."""


@runtime_checkable
class Polls(Protocol):
    """A queue far away: it is asked to wait for jobs, rather than asked again and again."""

    def poll(
        self, session: Session, seq: int, offers: Sequence[Offer], timeout_s: float, interrupt: Interrupt
    ) -> tuple[Claim, ...]:
        """Claim, and wait up to `timeout_s` where there are no jobs; may answer without any earlier.

        `interrupt` ends it at once: it has then either claimed, and returns that, or never will. Raises as `claim`.
        """


class JobQueue(Orders, OrderSettings, Outbox, FleetEvents, Reports, Swaps, States, Protocol):
    """Jobs, from submission to their end. Every call is atomic, and durable when it returns.

    All methods may be called from any thread. Raises Unreachable where the queue does not answer: what was asked may or
    may not have happened, and repeating the same call is safe for `claim`, `finish`, `beat` and a `submit` with a key.
    """

    url: str

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """Add a job. The same tenant and key again: the job of the first call.

        Raises: InvalidInput for an unknown tier, no stages, or a key that was used with another body;
        NeedsLargerSlot for more memory than any slot has.
        """

    def get(self, job_id: str) -> Job:
        """Return a job as it is now. Raises: JobNotFound."""

    def list(self, where: JobFilter = ...) -> tuple[Job, ...]:
        """Return matching jobs, newest first, without their inputs."""

    def cancel(self, job_id: str) -> Job:
        """End a queued job at once; mark a running one, which then ends `cancelled` whatever its worker says.

        A job that has ended stays as it is. Raises: JobNotFound.
        """

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        """Send failed jobs back to their first stage, with their clock and fresh tries; return their ids.

        Quarantined jobs (`error.code` worker_lost) found by a filter stay without `force`. Raises: JobNotFound, and
        Conflict for a job named by id that has not failed.
        """

    def delete(self, job_id: str) -> Deleted:
        """Forget a job and its payload. Raises: JobNotFound; Conflict while it runs."""

    def hello(self, info: WorkerInfo) -> Session:
        """Begin a session."""

    def goodbye(self, session: Session) -> None:
        """End a session; leases it still holds go back at once, uncounted."""

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """Lease the most urgent jobs that the offers can run, at most `limit` for each offer.

        Several offers of one slot are ways to use it: only the one that the most urgent job fits gets jobs. The
        same (session, seq) again returns the leases it still holds from the first time. Raises: StaleSession.
        """

    def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        """Answer many claims in one transaction; each gets its own answer, refusals included."""

    def start(self, session: Session, job_id: str, fence: Fence) -> None:
        """Begin a job that was claimed staged. Raises: StaleFence where another slot has taken it, or it has ended."""

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
        """End an attempt. After a stage that was not the last, the job is queued for its next one, which `then` claims
        in the same transaction where it can; where it does not, the staged job that `start` names begins in it.

        A repeat of the accepted finish gets the first answer again. Raises: StaleFence for anything else that does not
        hold the lease; it changes nothing.
        """

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        """End many attempts in one transaction; each gets its own answer, refusals included."""

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        """Give a lease back, uncounted. Raises: StaleFence."""

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """Show how far a running attempt is. Raises: StaleFence."""

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """Say that the session lives, what it holds, and how its slots are.

        A lease that two beats leave out and that is older than three beats goes back, uncounted. Raises: StaleSession.
        """

    def beat_all(self, calls: Sequence[BeatCall]) -> tuple[BeatReply | StaleSession, ...]:
        """Answer many beats in one transaction; each gets its own answer, refusals included."""

    def confirm_orders(self, session: Session, done: Sequence[OrderDone]) -> None:
        """Say, as a worker, which orders are carried out or refused; a repeat is legal. Raises: StaleSession."""

    def beats(self) -> Mapping[str, int]:
        """Return the number of the newest beat of each session that holds leases; what the Reaper watches."""

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """Take back the leases of a session whose newest beat is still `beat`, each counted as `worker_lost`.

        The session itself lives on: should its worker wake, its next beat tells it what it lost.
        """

    def tend(self) -> None:
        """Do what time alone demands: due retries become ready, deadlines expire, empty lanes go."""

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """Return (model, version) of waiting jobs past their first stage that no live session serves or targets."""

    def restart_pinned(self, model: str, version: str) -> int:
        """Send those jobs back to their first stage on any version, each at most twice; return how many."""

    def fleet(self) -> tuple[WorkerReport, ...]:
        """Return every session that has not ended, the longest silent last."""

    def slots_serving(self, model: str) -> int:
        """Count the live slots of a model that run its stages on accelerators."""

    def active_seen(self, models: Sequence[str]) -> tuple[ActiveSeen, ...]:
        """Return the newest row of each of these models that has one."""

    def see_active(self, model: str, after_seq: int, body: Mapping[str, Json]) -> bool:
        """Append a row; False, and nothing appended, where `after_seq` is not the newest (0: there is none)."""

    def tiers(self) -> tuple[Tier, ...]:
        """Return all tiers, the strictest first."""

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
        """Add or change a tier; waiting jobs are ranked by it at once. Raises: InvalidInput."""

    def set_default_tier(self, name: str) -> None:
        """Choose the tier of submissions that name none. Raises: InvalidInput."""

    def explain(self, job_id: str) -> Explanation:
        """Say where a job is and what it waits for. Raises: JobNotFound."""

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        """Return what happened to one job, or to all, oldest first."""

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """Listen for ready jobs of these models and for changes of these jobs."""

    def close(self) -> None:
        """Let go of the queue; closing twice is legal."""
