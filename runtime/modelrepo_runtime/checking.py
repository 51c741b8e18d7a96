"""Hold a model folder against the contract before it is published or run: no accelerator, no weights loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelrepo.contract import ModelSpec, inputs, load_spec, size_class
from modelrepo.errors import EntrypointFailed, InvalidJobInput
from modelrepo.pushing.earlier import reuse_checkpoints
from modelrepo.pushing.packing import code_files
from modelrepo.pushing.pickles import pickle_notes
from modelrepo.pushing.push_options import CheckRequest
from modelrepo.repository import Repository
from modelrepo.versions.manifest import Manifest
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.local_model import Box, fit_to_check, folder_model
from modelrepo_runtime.supervision import Child, ChildSpec, shared_spawner

IMPORT_TIMEOUT_S = 600.0
"""The first import of a large environment from a cold disk takes minutes."""
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found good about a model folder."""

    model: str
    entrypoint: str
    stages: tuple[str, ...]
    checkpoints: tuple[str, ...]
    python: Path
    import_s: float
    made_up_inputs: Mapping[str, Json]
    """The inputs of a made-up job that the contract accepts."""
    size_class: str | None
    warnings: tuple[str, ...] = ()
    """What works, and should not stay as it is."""

    def lines(self) -> list[str]:
        """Say it for people."""
        found = [
            f"model.yaml is good: {self.model}",
            f"{self.entrypoint} imports in {self.import_s:.1f} s with {self.python}",
            f"stages have the right methods: {', '.join(self.stages)}",
        ]
        if self.checkpoints:
            found.append(f"checkpoints are there: {', '.join(self.checkpoints)}")
        size = f", size class {self.size_class}" if self.size_class else ""
        found.append(f"a made-up job passes the inputs' schema{size}")
        return [*found, *(f"warning: {warning}" for warning in self.warnings)]


def check_folder(
    folder: Path,
    python: Path | None = None,
    *,
    box: Box | None = None,
    repository: Repository | None = None,
    reuse: Manifest | None = None,
) -> CheckReport:
    """Check schema, code, inputs, host needs, checkpoints, entrypoint and signatures of a model folder, in this order.

    Without `python` the environment is built as a push builds it. With `reuse` the checkpoints are those of that
    version, as a push with the same would take them, and may be missing here. Raises: InvalidSpec, InvalidCode,
    Unsuitable, InvalidCheckpoint, EntrypointFailed, and what `folder_model` raises.
    """
    spec = load_spec(folder)
    code_files(folder, spec)
    made_up = make_up_inputs(spec)
    size = _size_class(spec, made_up)
    taken = None if reuse is None else dict.fromkeys(reuse_checkpoints(spec, reuse), folder)
    box = box or Box(python=python)
    with folder_model(folder, box, repository, fit=fit_to_check, checkpoints=taken) as model:
        import_s = _import(spec, model.code, model.python)
        checkpoints = tuple(sorted(model.checkpoints))
        warnings = () if taken is not None else pickle_notes({n: _names(p) for n, p in model.checkpoints.items()})
    stages = tuple(stage.name for stage in spec.stages)
    entrypoint = str(spec.entrypoint)
    return CheckReport(spec.name, entrypoint, stages, checkpoints, model.python, import_s, made_up, size, warnings)


def import_entrypoint(request: CheckRequest) -> None:
    """Import a model's entrypoint in its environment, as a push does before it publishes. Raises: EntrypointFailed."""
    _import(request.spec, request.folder, request.python)


def _names(checkpoint: Path) -> list[str]:
    """Name the files of a checkpoint, which is one itself or a folder of them."""
    if not checkpoint.is_dir():
        return [checkpoint.name]
    return sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())


def make_up_inputs(spec: ModelSpec) -> dict[str, Json]:
    """Make the inputs of a job that nobody asked for: examples, then the least that the schema allows.

    What no rule here can satisfy (a `pattern`, say) is left out rather than guessed. Files are left out.
    """
    made_up: dict[str, Json] = {}
    for name, declared in (spec.inputs or {}).items():
        if declared.get("format") == "file":
            continue
        if "default" in declared:
            made_up[name] = declared["default"]
            continue
        fitting = [value for value in _candidates(declared) if _fits(spec, name, declared, value)]
        if fitting:
            made_up[name] = fitting[0]
    return made_up


def _import(spec: ModelSpec, code: Path, python: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="modelrepo-import-") as folder:
        child = Child.start(
            ChildSpec(
                python=python,
                code_roots=tuple(code / root for root in spec.code),
                entrypoint=str(spec.entrypoint),
                model=spec.name,
                version="unpublished",
                stages=tuple(stage.name for stage in spec.stages),
                folder=Path(folder),
                env=spec.env,
                import_only=True,
            ),
            shared_spawner(),
        )
        try:
            return child.load(IMPORT_TIMEOUT_S)["import_s"]
        except EntrypointFailed as error:
            log = "\n".join(error.log.splitlines()[-_LOG_LINES:])
            raise EntrypointFailed(
                f"entrypoint {spec.entrypoint} of {spec.name} does not start in the environment of {python}: "
                f"{child.failure}; correct the code or the dependencies in pyproject.toml",
                log=log,
            ) from None
        finally:
            child.stop()


def _size_class(spec: ModelSpec, made_up: Mapping[str, Json]) -> str | None:
    """Evaluate `size:`, unless it wants an input that could not be made up."""
    known = {name for name, declared in (spec.inputs or {}).items() if declared.get("format") != "file"}
    return size_class(spec, made_up) if known <= made_up.keys() else None


def _candidates(declared: Mapping[str, Any]) -> list[Json]:
    kinds = declared.get("type", "string")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    least = declared.get("minimum", declared.get("exclusiveMinimum"))
    plain: dict[str, list[Json]] = {
        "string": ["", "x" * int(declared.get("minLength", 1))],
        "integer": [least, 1, 0, declared.get("maximum"), (least or 0) + 1],
        "number": [least, 1.0, 0.0, declared.get("maximum"), (least or 0) + 0.5],
        "boolean": [False, True],
        "array": [[]],
        "object": [{}],
        "null": [None],
    }
    chosen = [*declared.get("examples", []), *declared.get("enum", [])]
    if "const" in declared:
        chosen.append(declared["const"])
    return [*chosen, *(value for value in plain.get(str(kind), []) if value is not None or kind == "null")]


def _fits(spec: ModelSpec, name: str, declared: Mapping[str, Any], value: Json) -> bool:
    try:
        inputs.check(replace(spec, inputs={name: declared}), {name: value})
    except InvalidJobInput:
        return False
    return True
