"""The nouns of a job: what is submitted, claimed, finished and shown. Of ours it imports `job_memory` alone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from modelrepo_runtime.job_memory import JobMemory

Json: TypeAlias = Any
"""None, bool, int, float, str, list or dict of the same."""


class Status(StrEnum):
    """All that a user ever sees of a job's state."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """True once the job stays as it is, unless `jobs retry` sends it back."""
        return self not in (Status.QUEUED, Status.RUNNING)


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.EXPIRED}),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED}
    ),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.REJECTED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}


class Cause(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    EXCEPTION = "exception"
    OUT_OF_MEMORY = "out_of_memory"
    CRASH = "crash"
    HANG = "hang"
    LOAD_FAILED = "load_failed"
    PREEMPTED = "preempted"
    WORKER_LOST = "worker_lost"
    CANCELLED = "cancelled"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write as the holder of one attempt; compared whole."""

    number: int
    token: str

    def __str__(self) -> str:
        return f"{self.number}-{self.token}"

    @classmethod
    def parse(cls, text: str) -> Fence:
        """Read what `str(fence)` wrote. Raises: ValueError."""
        number, _, token = text.partition("-")
        return cls(int(number), token)


@dataclass(frozen=True, slots=True)
class StageNeed:
    """One stage as the queue must know it; stored with the job so that claims need no repository."""

    name: str
    on: str = "gpu"
    timeout_s: float = 3600.0
    max_batch: int = 1
    """Jobs that one call of the stage may take together."""
    batch_wait_s: float = 0.0
    """The longest that a slot waits for a batch to fill once it has its first job."""

    def to_json(self) -> dict[str, Json]:
        known: dict[str, Json] = {"name": self.name, "on": self.on, "timeout_s": self.timeout_s}
        if self.max_batch > 1:
            known.update(max_batch=self.max_batch, batch_wait_s=self.batch_wait_s)
        return known

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> StageNeed:
        return cls(
            value["name"], value["on"], value["timeout_s"], value.get("max_batch", 1), value.get("batch_wait_s", 0.0)
        )


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a job's events are posted, and the secret (`whsec_..`) that signs them."""

    url: str
    secret: str


MOST_ADAPTERS = 8
"""Of one job."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Weights that come with a job, such as a LoRA: which bytes, where they lie, and how much they count.

    Exactly one of `key` and `ref` is set.
    """

    name: str
    """Of its file, in letters that any folder may hold; what a model sees."""
    sha256: str
    size_bytes: int
    weight: float = 1.0
    owner: str = ""
    """The tenant that it came from; empty where the team has published it. Boxes keep owners apart."""
    key: str | None = None
    """Its place in the JobStore."""
    ref: str | None = None
    """`NAME@VERSION` of what the repository publishes."""

    def to_json(self) -> dict[str, Json]:
        whole = {"name": self.name, "sha256": self.sha256, "size_bytes": self.size_bytes, "weight": self.weight}
        return {**whole, "owner": self.owner, **({"key": self.key} if self.ref is None else {"ref": self.ref})}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Adapter:
        figures = (value["name"], value["sha256"], value["size_bytes"], value["weight"])
        return cls(*figures, value["owner"], value.get("key"), value.get("ref"))


def stored_keys(files: Mapping[str, str], adapters: tuple[Adapter, ...]) -> tuple[str, ...]:
    """Return the keys in the JobStore of all that a job came with."""
    return (*files.values(), *(adapter.key for adapter in adapters if adapter.key is not None))


@dataclass(frozen=True, slots=True)
class Submission:
    """A request as it enters the queue, its inputs already checked against the model's schema."""

    model: str
    inputs: Mapping[str, Json]
    stages: tuple[StageNeed, ...]
    tier: str | None = None
    """None: the queue's default tier."""
    tenant: str = "default"
    version: str | None = None
    """Set only where the user asks for one version; else whichever is active when it runs."""
    deadline: float | None = None
    """Epoch seconds after which nobody wants it any more."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Input name -> key in the JobStore, for each input that is a file."""
    job_id: str | None = None
    """Chosen beforehand by whoever stores input files under it; else the queue chooses."""
    size: str | None = None
    """Size class: what the model's `size` makes of the inputs; learnt times are kept by it."""
    webhook: Webhook | None = None
    adapters: tuple[Adapter, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a job made; `key` is its place in the JobStore."""

    name: str
    key: str
    size_bytes: int
    content_type: str

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "key": self.key, "size_bytes": self.size_bytes, "content_type": self.content_type}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> OutputFile:
        return cls(value["name"], value["key"], value["size_bytes"], value["content_type"])


@dataclass(frozen=True, slots=True)
class KeptState:
    """What a stage has saved of itself, as it lies in the JobStore."""

    number: int
    """Of the job's states, the newest has the largest."""
    fence: int
    """Of the attempt that has saved it."""
    digest: str
    """Of the manifest of the version that it belongs to."""
    key: str
    size_bytes: int
    sha256: str

    @property
    def age(self) -> tuple[int, int]:
        """What orders states of one job: the newest has the greatest."""
        return self.fence, self.number


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job did not succeed, in words for its user; tracebacks stay in the log."""

    code: str
    message: str
    retryable: bool = False

    def to_json(self) -> dict[str, Json]:
        return {"code": self.code, "message": self.message, "retryable": self.retryable}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> JobError:
        return cls(value["code"], value["message"], value["retryable"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as its worker tells the queue. A repeat must be equal in every field."""

    cause: Cause
    result: Json = None
    outputs: tuple[OutputFile, ...] = ()
    error: JobError | None = None
    log_key: str | None = None
    counted: bool = True
    """False gives the try back: it is not held against the job."""
    runtime_s: float = 0.0
    cluster_bound: bool = False
    """True: what it handed over lies in its cluster's own storage, so the next stage must run in that cluster."""
    handover: tuple[OutputFile, ...] = ()
    """What this stage and those before it have handed over."""
    memory: JobMemory | None = None
    """What it took at most; None where it did not run alone, or nobody could tell."""

    def to_json(self) -> dict[str, Json]:
        bound = {"cluster_bound": True} if self.cluster_bound else {}
        handed = {"handover": [file.to_json() for file in self.handover]} if self.handover else {}
        measured = {"memory": self.memory.to_json()} if self.memory else {}
        return {
            **bound,
            **handed,
            **measured,
            "cause": self.cause.value,
            "result": self.result,
            "outputs": [output.to_json() for output in self.outputs],
            "error": self.error.to_json() if self.error else None,
            "log_key": self.log_key,
            "counted": self.counted,
            "runtime_s": self.runtime_s,
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one attempt at one stage."""

    job_id: str
    fence: Fence
    model: str
    version: str | None
    stage: str
    stage_index: int
    last_stage: bool
    attempt: int
    """1 for the first try at this stage."""
    inputs: Mapping[str, Json]
    previous: Json
    """What the stage before returned."""
    tier: str
    enqueued: float
    timeout_s: float
    created_at: float
    files: Mapping[str, str] = field(default_factory=dict)
    """Input name -> key in the JobStore."""
    slot: str = ""
    """The slot of the offer that this answers; one call may carry the offers of many slots."""
    staged: bool = False
    """True: its inputs may be fetched, but it begins only by `start`."""
    size: str | None = None
    handover: tuple[OutputFile, ...] = ()
    """What the stages before have handed over."""
    states: tuple[KeptState, ...] = ()
    """What earlier attempts at this stage have saved, the newest first."""
    adapters: tuple[Adapter, ...] = ()


@dataclass(frozen=True, slots=True)
class Eta:
    """When a job is expected to start and to end, epoch seconds; None where nothing is known of it."""

    start_at: float | None
    finish_at: float | None

    def to_json(self) -> dict[str, Json]:
        return {"start_at": timestamp(self.start_at), "finish_at": timestamp(self.finish_at)}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as everybody sees it: API, command line, events. Times are epoch seconds of the queue's clock."""

    id: str
    model: str
    tier: str
    tenant: str
    status: Status
    created_at: float
    enqueued: float
    version: str | None = None
    """The version that runs or ran it last, or that its user asked for."""
    stage: str | None = None
    attempt: int = 0
    progress: float | None = None
    message: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    position: int | None = None
    """Jobs of its model that would be claimed before it, counted to a thousand per lane; None unless queued."""
    slo_share: float | None = None
    """The part of its tier's longest acceptable wait that it has used; may pass 1."""
    result: Json = None
    outputs: tuple[OutputFile, ...] = ()
    error: JobError | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    log_key: str | None = None
    cancel_requested: bool = False
    eta: Eta | None = None
    size: str | None = None
    adapters: tuple[Adapter, ...] = ()

    def to_json(self, urls: Mapping[str, tuple[str | None, float | None]] | None = None) -> dict[str, Json]:
        """Return the job object of the API; `urls` maps an output's key to (url, expiry)."""
        places = urls or {}
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "tier": self.tier,
            "tenant": self.tenant,
            "status": self.status.value,
            "stage": self.stage,
            "progress": self.progress,
            "message": self.message,
            "created_at": timestamp(self.created_at),
            "started_at": timestamp(self.started_at),
            "finished_at": timestamp(self.finished_at),
            "eta": self.eta.to_json() if self.eta is not None and not self.status.ended else None,
            "queue": None
            if self.status.ended
            else {"position": self.position, "slo_share": None if self.slo_share is None else round(self.slo_share, 4)},
            "result": self.result,
            "outputs": [_output_json(output, places.get(output.key, (None, None))) for output in self.outputs],
            "error": self.error.to_json() if self.error else None,
            "metadata": dict(self.metadata),
        }


def _output_json(output: OutputFile, place: tuple[str | None, float | None]) -> dict[str, Json]:
    url, expires_at = place
    return {
        "name": output.name,
        "url": url,
        "expires_at": timestamp(expires_at),
        "bytes": output.size_bytes,
        "content_type": output.content_type,
    }


def timestamp(at: float | None) -> str | None:
    """Write epoch seconds as RFC 3339 in UTC with milliseconds; None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter is taken for a digit."""


def new_id(prefix: str, at: float | None = None) -> str:
    """Return `<prefix>_` and 24 characters: milliseconds since the epoch, then 70 random bits. Sorts by time."""
    number = (int((time.time() if at is None else at) * 1000) << 70) | secrets.randbits(70)
    return f"{prefix}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(115, -1, -5))


def id_time(identifier: str) -> float:
    """Return the epoch seconds that `new_id` wrote into an id. Raises: ValueError."""
    body = identifier.rpartition("_")[2]
    if len(body) != 24:
        raise ValueError(f"not an id: {identifier!r}")
    number = 0
    for letter in body:
        number = number << 5 | _ALPHABET.index(letter)
    return (number >> 70) / 1000
