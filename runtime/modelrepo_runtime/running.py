"""Run a model here, without a queue, for the one who writes it: `run` with its debugger, and `shell`."""

from __future__ import annotations

import mimetypes
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from modelrepo.contract import ModelSpec, StageSpec, inputs
from modelrepo.errors import EntrypointFailed, InvalidInput, InvalidJobInput
from modelrepo_runtime.job_adapters import file_digest
from modelrepo_runtime.jobs import MOST_ADAPTERS, Cause, JobError, Json
from modelrepo_runtime.local_model import LocalModel
from modelrepo_runtime.supervision import (
    Child,
    ChildGone,
    ChildOutcome,
    ChildSpec,
    JobRequest,
    RankGroup,
    shared_spawner,
    start_child,
)
from modelrepo_runtime.supervision.messages import start_message
from modelrepo_runtime.supervision.process import ChildProcess
from modelrepo_runtime.supervision.spec import AdapterPath

OnProgress = Callable[[str, float, str | None], None]
"""Called with the stage, its fraction and its message."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a model is run here."""

    outputs: Path = field(default_factory=lambda: Path("outputs"))
    """Where output files go; made when the first one comes."""
    debug: bool = False
    """Open pdb in the child, on this terminal, where model code raises."""
    on_progress: OnProgress | None = None
    on_partial: Callable[[Json], None] | None = None
    adapters: Sequence[tuple[Path, float]] = ()
    """Files of this box that every job is given as `job.adapters`, and their weights."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One job that was run here."""

    cause: Cause
    result: Json
    outputs: Mapping[str, Path]
    error: JobError | None
    seconds: Mapping[str, float]
    """For each stage that was run."""

    @property
    def succeeded(self) -> bool:
        return self.cause is Cause.SUCCEEDED


class LocalRun:
    """A model that is loaded here and runs one job after the other; a context manager that ends it."""

    def __init__(self, model: LocalModel, options: RunOptions | None = None) -> None:
        self.model = model
        self.options = options or RunOptions()
        self.phases: Mapping[str, float] = {}
        self._cleanup = ExitStack()
        self._child: Child | RankGroup | None = None
        self._spec: ChildSpec | None = None
        self._folder = Path()
        self._done = 0
        self._adapters = tuple(_local_adapter(path, weight) for path, weight in self.options.adapters)

    def __enter__(self) -> Self:
        ranks = self.model.fit.ranks
        if len(self._adapters) > MOST_ADAPTERS:
            raise InvalidInput(f"{len(self._adapters)} adapters are too many: a job may have {MOST_ADAPTERS}")
        if self.options.debug and ranks > 1:
            raise InvalidInput(f"cannot debug {ranks} ranks on one terminal; pass --ranks 1, or leave --pdb out")
        with ExitStack() as cleanup:
            self._folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="modelrepo-run-")))
            spec = self.model.child_spec(self._folder / "child")
            self._spec = replace(spec, live_output=True, terminal=self.options.debug, post_mortem=self.options.debug)
            cleanup.callback(self._stop)
            cleanup.enter_context(_interrupts_go_to_the_child(self.options.debug))
            self._start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def run(self, values: Mapping[str, Json | Path]) -> RunResult:
        """Run one job through its stages; file inputs are paths. Raises: InvalidJobInput, EntrypointFailed."""
        checked = inputs.check(self.model.spec, values)
        files = _local_files(self.model.spec, checked)
        self._done += 1
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            return self._run_stages(checked, files, Path(work))

    def _run_stages(self, checked: Mapping[str, Json], files: Mapping[str, Path], work: Path) -> RunResult:
        seconds: dict[str, float] = {}
        kept: dict[str, Path] = {}
        job_id = f"local-{secrets.token_hex(4)}"
        outcome = ChildOutcome(Cause.SUCCEEDED)
        for stage in self.model.fit.stages:
            request = JobRequest(
                job_id=job_id,
                attempt=1,
                stage=stage.name,
                inputs={**checked, **{name: {"file": path.name} for name, path in files.items()}},
                files=files,
                adapters=self._adapters,
                previous=outcome.result,
                handover_dir=work / "handover",
                output_dir=work / f"outputs-{stage.name}",
                log_path=work / f"{stage.name}.log",
            )
            outcome = self._attempt(request, stage)
            seconds[stage.name] = outcome.runtime_s
            if outcome.cause is not Cause.SUCCEEDED:
                break
            kept |= {file.name: self._keep(file.name, file.path) for file in outcome.outputs}
        return RunResult(outcome.cause, outcome.result, kept, outcome.error, seconds)

    def _attempt(self, request: JobRequest, stage: StageSpec) -> ChildOutcome:
        tell = self.options.on_progress

        def on_progress(fraction: float, message: str | None) -> None:
            if tell is not None:
                tell(stage.name, fraction, message)

        timeout_s = None if self.options.debug else stage.timeout_s
        for _ in range(2):
            try:
                return self._loaded().run(
                    request, timeout_s=timeout_s, on_progress=on_progress, on_partial=self.options.on_partial
                )
            except ChildGone:
                continue
        return ChildOutcome(
            Cause.CRASH, error=JobError("crash", f"{self.model.spec.name} ended between two jobs", True)
        )

    def _loaded(self) -> Child | RankGroup:
        if self._child is None or not self._child.alive:
            self._stop()
            self._start()
        assert self._child is not None
        return self._child

    def _start(self) -> None:
        assert self._spec is not None
        self._child = start_child(self._spec, shared_spawner())
        try:
            self.phases = self._child.load(None)
        except EntrypointFailed as error:
            where = f"in the environment of {self.model.python}"
            raise EntrypointFailed(f"{error} {where}; its output is above", log=error.log) from None

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop(5.0)

    def _keep(self, name: str, path: Path) -> Path:
        """Move an output to where it was asked for, with the suffix of its declared type."""
        folder = self.options.outputs if self._done == 1 else self.options.outputs / str(self._done)
        folder.mkdir(parents=True, exist_ok=True)
        content_type = inputs.file_outputs(self.model.spec).get(name)
        suffix = "" if Path(name).suffix or not content_type else mimetypes.guess_extension(content_type) or ""
        return Path(shutil.move(path, folder / f"{name}{suffix}"))


def run_model(
    model: LocalModel, jobs: Iterable[Mapping[str, Json | Path]], options: RunOptions | None = None
) -> Iterator[RunResult]:
    """Load a model once and run jobs through it, giving each one's result as it comes.

    Raises: InvalidJobInput, EntrypointFailed.
    """
    with LocalRun(model, options) as run:
        for values in jobs:
            yield run.run(values)


def open_shell(model: LocalModel) -> int:
    """Open an interactive Python in the model's environment, on this terminal, with `ctx` at hand; its exit code."""
    with tempfile.TemporaryDirectory(prefix="modelrepo-shell-") as folder, _interrupts_go_to_the_child(True):
        spec = replace(model.child_spec(Path(folder)), terminal=True, ranks=1)
        process = ChildProcess(spec, shared_spawner(), None)
        try:
            process.tell(start_message(spec, process.scratch, secrets.token_hex(8), mode="shell"))
            process.watch.wait_end(None)
        finally:
            report = process.end(polite_s=0, terminate_s=1)
            process.let_go(report.gone)
        return process.exit_code()


def _local_adapter(path: Path, weight: float) -> AdapterPath:
    return AdapterPath(path.name, path.absolute(), file_digest(path)[0], weight)


def _local_files(spec: ModelSpec, checked: Mapping[str, Json | Path]) -> dict[str, Path]:
    files = {}
    for name in inputs.file_inputs(spec):
        value = checked.get(name)
        if isinstance(value, os.PathLike):
            files[name] = Path(value).absolute()
        elif value is not None:
            raise InvalidJobInput(
                f"inputs of {spec.name}: /{name}: give a local file: -i {name}=@FILE", pointer=f"/{name}"
            )
    return files


@contextmanager
def _interrupts_go_to_the_child(wanted: bool) -> Iterator[None]:
    """Leave Ctrl-C to the debugger or shell that shares our terminal."""
    if not wanted:
        yield
        return
    try:
        # Not SIG_IGN, which the child would inherit.
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
