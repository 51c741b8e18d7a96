"""What a child is started with, what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from modelrepo_runtime.jobs import Cause, JobError, Json


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Which process of a group one is, and where the group meets."""

    rank: int
    master_port: int
    """Of the loopback address."""
    rendezvous: Path
    """A file that is not there yet; the ranks may meet in it instead."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One version's process: its interpreter, its code, and everything that its `ctx` shows."""

    python: Path
    """`<environment>/bin/python`."""
    code_roots: tuple[Path, ...]
    entrypoint: str
    model: str
    version: str
    stages: tuple[str, ...]
    folder: Path
    """The child's own: scratch, log of its start, record of its process. Made if absent."""
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    pooled: Mapping[Path, tuple[Path, int, int]] = field(default_factory=dict)
    """File of a checkpoint -> its entry in the host pool, with the size and time of change that it must show."""
    config: Mapping[str, Json] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    """`env:` of the contract."""
    device: str = "cpu"
    devices: tuple[str, ...] = ("cpu",)
    device_env: Mapping[str, str] = field(default_factory=dict)
    """CUDA_VISIBLE_DEVICES and its like."""
    max_batch: Mapping[str, int] = field(default_factory=dict)
    """Stage -> `max_batch`; above 1 the method takes and returns a list."""
    keep_open_fds: tuple[int, ...] = ()
    """Locks that live as long as any process of the child."""
    memory_limit_bytes: int | None = None
    """Held by a memory cgroup where this process may make one, else not held."""
    live_output: bool = False
    """Let it print to our standard error instead of logs."""
    terminal: bool = False
    """Give it our terminal, with standard input; includes `live_output`."""
    post_mortem: bool = False
    """Open pdb after an exception; wants `terminal`."""
    import_only: bool = False
    """Import the entrypoint and look at its methods, no more: `load` ends after that."""
    ranks: int = 1
    """How many processes run it together, each on a device of its own."""
    place: RankPlace | None = None
    """Of one of several such processes."""

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"

    @property
    def rank(self) -> int:
        return 0 if self.place is None else self.place.rank


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state that a child has saved. `path` None: it could not, and `why` says why."""

    number: int
    path: Path | None
    size_bytes: int
    blocked_s: float
    in_memory: bool
    why: str = ""
    """Why it is not in shared memory."""


@dataclass(frozen=True, slots=True)
class StateRequest:
    """What an attempt may go on from, and where it saves its own states."""

    memory: Path | None
    """The attempt's folder in shared memory, made if absent; None: the box has none."""
    disk: Path
    """Where states go that find no room there."""
    about: Mapping[str, Json] = field(default_factory=dict)
    """Written into every state: whose it is."""
    first: int = 1
    """The number of its first state."""
    found: Path | None = None
    """The state of an earlier attempt."""
    told: Callable[[SavedState], None] | None = None
    """Called with each state that was saved, in the thread that runs the attempt."""


@dataclass(frozen=True, slots=True)
class AdapterPath:
    """An adapter of a job on this box; what `job.adapters` shows of it."""

    name: str
    path: Path
    sha256: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One attempt at one stage. Folders are made if absent; `scratch` is emptied before and after."""

    job_id: str
    attempt: int
    stage: str
    inputs: Mapping[str, Json]
    handover_dir: Path
    output_dir: Path
    log_path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    adapters: tuple[AdapterPath, ...] = ()
    previous: Json = None
    scratch: Path | None = None
    """None: the child's own."""
    state: StateRequest | None = None
    """None: `save_state` looks at what it is given, and keeps nothing."""
    ballot: Path | None = None
    """Of a group of ranks: what its ranks agree in on when the job is cancelled."""
    rank: int = 0


@dataclass(frozen=True, slots=True)
class OutputPath:
    """A file that a job left in its output folder."""

    name: str
    path: Path
    content_type: str
    """Guessed from the name; the contract's `outputs:` knows better."""


class Lacked(StrEnum):
    """Which memory an attempt ran out of."""

    ACCELERATOR = "accelerator"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class MemoryPeaks:
    """What an attempt took at most, in bytes; None where nobody could tell."""

    accelerator_bytes: int | None = None
    """On the fullest of its devices."""
    host_bytes: int | None = None
    lacked: Lacked | None = None
    """Set where the slot had not enough, rather than a limit that the model's own contract sets."""

    def with_rank(self, other: MemoryPeaks) -> MemoryPeaks:
        """Add another rank of the same attempt: each has a device of its own, and all share the host."""
        on_devices = (self.accelerator_bytes, other.accelerator_bytes)
        fullest = max((each for each in on_devices if each is not None), default=None)
        known = [each for each in (self.host_bytes, other.host_bytes) if each is not None]
        return MemoryPeaks(fullest, sum(known) if len(known) == 2 else None, self.lacked or other.lacked)


@dataclass(frozen=True, slots=True)
class ChildOutcome:
    """How an attempt ended. After CRASH, HANG and most OUT_OF_MEMORY the child is gone: look at `child.alive`."""

    cause: Cause
    result: Json = None
    outputs: tuple[OutputPath, ...] = ()
    error: JobError | None = None
    runtime_s: float = 0.0
    counted: bool = True
    """False: whoever is to blame, it need not be this job."""
    memory: MemoryPeaks = MemoryPeaks()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Host memory of a child and all its descendants."""

    rss_bytes: int
    peak_bytes: int
    """The cgroup's high-water mark, else that of the child's first process."""
    own_bytes: int = 0
    """Without pages of files, which other processes map as well and the kernel or the pool can take back."""


@dataclass(frozen=True, slots=True)
class StopReport:
    """What it took to end a child."""

    step: str
    """`drained`, `terminated`, `killed` or `gone before`."""
    orphans: tuple[int, ...]
    """Processes that had left the child's group and were ended too."""
    gone: bool
    """False where a process did not die within seconds of SIGKILL (a driver call that never returns)."""
