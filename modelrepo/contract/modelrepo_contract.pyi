"""Types of `ctx` and `job`, for editors and type checkers only: nothing is imported from here when the model runs.

from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from modelrepo_contract import Ctx, Job
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from _typeshed import Incomplete as Tensor

class Ctx(Protocol):
    """What load(ctx), warmup(ctx) and reload(ctx) are given: one per process."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that this process will run; load only what they need."""
    @property
    def device(self) -> str:
        """The device of this rank: "cuda:0" (AMD too), "mps" or "cpu"."""
    @property
    def devices(self) -> tuple[str, ...]:
        """Every device of the slot."""
    @property
    def rank(self) -> int:
        """Which of the processes that run the model together this is; 0 speaks for the job."""
    @property
    def local_rank(self) -> int: ...
    @property
    def world_size(self) -> int:
        """How many processes run the model together: gpus: of its stages."""
    @property
    def config(self) -> Mapping[str, Any]:
        """config: of model.yaml with the overrides of active.yaml."""
    @property
    def secrets(self) -> Mapping[str, str]:
        """A value for each name under secrets:."""
    @property
    def scratch(self) -> Path:
        """A folder of this process, emptied before each job."""
    @property
    def version(self) -> str:
        """The version that runs, as "v42"."""
    def checkpoint(self, name: str) -> Path:
        """The file or folder of a named checkpoint, read-only; folders keep their layout."""
    def load_safetensors(
        self,
        name: str,
        device: str | None = None,
        *,
        names: Iterable[str] | None = None,
        slices: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """The tensors of a .safetensors checkpoint, or of all such files in its folder; on ctx.device by default.

        name may be CHECKPOINT/PATH. names: only these. slices: only the part (dimension, start, stop) of these.
        """

class Adapter(Protocol):
    """A file of weights that came with a job, such as a LoRA."""

    @property
    def name(self) -> str:
        """The name of its file, or NAME@VERSION of what the repository publishes."""
    @property
    def path(self) -> Path:
        """The local file, with the suffix that it was given with. It is read only, and goes with the stage."""
    @property
    def sha256(self) -> str:
        """64 of 0-9a-f; the same bytes have the same, so a model may keep by it what it has made of them."""
    @property
    def weight(self) -> float:
        """How much it is to count; 1.0 unless given."""

class Job(Protocol):
    """What a stage's method is given: one job, or a list of them where max_batch is above 1."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int:
        """1 for the first try at this stage."""
    @property
    def inputs(self) -> Mapping[str, Any]:
        """Checked against inputs: and with defaults filled in."""
    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled; progress() and check() raise then.

        The n-th answer of these three is the same on all ranks: ask equally often on each.
        """
    @property
    def previous(self) -> Any:
        """What the stage before returned; None in the first."""
    @property
    def state(self) -> Mapping[str, Any] | None:
        """What an earlier attempt at this stage saved last, tensors on the CPU; None where there is nothing.

        Each access reads it anew. What this attempt saves does not change it.
        """
    @property
    def adapters(self) -> Sequence[Adapter]:
        """Adapters that came with the job, in the order in which they were given; they are verified."""
    def file(self, name: str) -> Path:
        """The local copy of an input of format: file."""
    def output(self, name: str) -> Path:
        """A path to write to; the file is kept when the stage succeeds."""
    def progress(self, fraction: float, message: str | None = None) -> None:
        """Report 0.0 to 1.0. Raises Cancelled, a BaseException, once the job is cancelled."""
    def check(self) -> None:
        """Raise Cancelled once the job is cancelled."""
    def reject(self, code: str, message: str) -> NoReturn:
        """End the job as rejected: its inputs cannot be served, and no other try would help."""
    def retry(self, message: str) -> NoReturn:
        """End this attempt and ask for another one."""
    def handover(self, name: str) -> Path:
        """A file that one stage writes and later stages of the same job read."""
    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep what a later attempt at this stage goes on from; returns once it is copied.

        Values: what JSON has, bytes, tensors, numpy arrays, and dicts, lists and tuples of these; else TypeError.
        """
