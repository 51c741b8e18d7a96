"""What the queue in memory keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelrepo_runtime.jobs import Fence, JobError, Json, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.lanes import Lane, Place
from modelrepo_runtime.queue.port import HistoryRow, SlotReport, WorkerInfo


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold on one attempt."""

    fence: Fence
    session: str
    seq: int
    after: int | None
    """Number of the fence whose finish gave it."""
    place: Place
    stages: tuple[StageNeed, ...]
    own_plan: bool
    """True where `stages` are the version's and not those that the job came with."""
    stage_index: int
    attempt: int
    version: str
    claimed: float

    @property
    def stage(self) -> StageNeed:
        return self.stages[self.stage_index]

    @property
    def last_stage(self) -> bool:
        return self.stage_index == len(self.stages) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the history, with what a repeated finish is compared with."""

    row: HistoryRow
    digest: str = ""
    status: Status | None = None
    box: str = ""


@dataclass(slots=True)
class Record:
    """Everything about one job."""

    number: int
    id: str
    submission: Submission
    tier: str
    created: float
    enqueued: float
    lane: Lane | None = None
    due: float | None = None
    stage_index: int = 0
    attempt: int = 1
    lease: Lease | None = None
    pinned_version: str | None = None
    pinned_stages: tuple[StageNeed, ...] | None = None
    previous: Json = None
    restarts: int = 0
    fraction: float | None = None
    message: str | None = None
    cancel_requested: bool = False
    status: Status | None = None
    finished: float | None = None
    done_as: Lease | None = None
    outcome: Outcome | None = None
    error: JobError | None = None
    history: list[Entry] = field(default_factory=list)

    @property
    def job(self) -> int:
        return self.number

    @property
    def model(self) -> str:
        return self.submission.model

    @property
    def stages(self) -> tuple[StageNeed, ...]:
        """The plan that it follows now."""
        return self.pinned_stages or self.submission.stages

    @property
    def ready(self) -> bool:
        return self.lane is not None and self.due is None

    @property
    def held(self) -> Lease:
        """Its lease, where there must be one."""
        assert self.lease is not None
        return self.lease


@dataclass(slots=True)
class Life:
    """A session."""

    info: WorkerInfo
    number: int
    """Of its newest beat."""
    at: float
    slots: tuple[SlotReport, ...] = ()
