"""What model.yaml says, as values that cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelrepo.contract.conditions import AcceleratorRule

SPEC_FILE = "model.yaml"
CONTRACT = 1
BUCKET_SCHEMES = ("s3://", "gs://", "az://")
# A stage without `timeout:` ends after an hour: a hang in C is seen by nothing else.
DEFAULT_STAGE_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """The class, or any callable without arguments, that makes the model."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """Where one named checkpoint's bytes come from; the patterns choose files inside a folder."""

    source: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["local", "hf", "bucket", "repository"]:
        if self.source.startswith("hf://"):
            return "hf"
        if self.source.startswith(BUCKET_SCHEMES):
            return "bucket"
        return "repository" if self.source.startswith("modelrepo:") else "local"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One step of a job; its name is the method that runs it. `checkpoints=None` means all of them."""

    name: str
    on: Literal["cpu", "gpu"] = "gpu"
    gpus: int = 1
    gpu_memory_bytes: int | None = None
    host_memory_bytes: int | None = None
    max_batch: int = 1
    timeout_s: float = DEFAULT_STAGE_TIMEOUT_S
    checkpoints: tuple[str, ...] | None = None
    batch_wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """What a box must have before anything is downloaded to it."""

    commands: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    compiler: bool = False
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A whole model.yaml. `raw` is the JSON that the manifest keeps, `inputs=None` means that anything goes."""

    contract: int
    name: str
    entrypoint: Entrypoint
    raw: Mapping[str, Any]
    code: tuple[str, ...] = (".",)
    checkpoints: Mapping[str, CheckpointSource] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] | None = None
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    size: str | None = None
    stages: tuple[StageSpec, ...] = (StageSpec("run"),)
    accelerators: tuple[AcceleratorRule, ...] = ()
    host: HostNeeds = field(default_factory=HostNeeds)
    env: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    swap: Literal["auto", "overlap", "drain", "inplace"] = "auto"

    def stage(self, name: str) -> StageSpec:
        """Raises: KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
