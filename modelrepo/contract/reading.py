"""From model.yaml, or the manifest's copy of it, to a ModelSpec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

from modelrepo.contract import size_expression
from modelrepo.contract.conditions import AcceleratorRule, parse_condition
from modelrepo.contract.host import parse_versions
from modelrepo.contract.inputs import check_declaration
from modelrepo.contract.quantities import parse_duration, parse_size
from modelrepo.contract.spec import (
    CONTRACT,
    DEFAULT_STAGE_TIMEOUT_S,
    SPEC_FILE,
    CheckpointSource,
    Entrypoint,
    HostNeeds,
    ModelSpec,
    StageSpec,
)
from modelrepo.contract.structure import check_structure
from modelrepo.contract.wording import near
from modelrepo.contract.yaml_lines import Document, Path, parse_yaml
from modelrepo.errors import InvalidSpec, NewerFormat

V = TypeVar("V")
T = TypeVar("T")

# Methods of a model that are no stage.
RESERVED_STAGES = frozenset({"load", "warmup", "reload"})
# What the worker decides for each process; a version that fixed it could not share a box.
RESERVED_ENV_PREFIXES = ("MODELREPO_", "UV_", "PIP_")
RESERVED_ENV = frozenset(
    {
        *("PATH", "HOME", "VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    }
)


def load_spec(folder: FilePath) -> ModelSpec:
    """Read the folder's model.yaml. Raises: InvalidSpec."""
    path = folder / SPEC_FILE
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InvalidSpec("no such file; `modelrepo new DIR` writes a first one", path=str(path)) from None
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"no UTF-8 text: {error.reason} at byte {error.start}", path=str(path)) from None
    except OSError as error:
        raise InvalidSpec(f"cannot be read: {error.strerror}", path=str(path)) from None
    return parse_spec(text, str(path))


def parse_spec(text: str, path: str = SPEC_FILE) -> ModelSpec:
    """Read the text of a model.yaml. Raises: InvalidSpec, with the line."""
    document = parse_yaml(text, path)
    if not isinstance(document.value, Mapping):
        raise InvalidSpec("no mapping; the first lines are contract: 1, name:, entrypoint:", path=path, line=1)
    number = document.value.get("contract")
    if isinstance(number, int) and not isinstance(number, bool) and number > CONTRACT:
        message = f"contract {number} is newer than this modelrepo reads ({CONTRACT}); upgrade modelrepo-toolkit"
        raise InvalidSpec(message, path=path, line=document.line(("contract",)), key="contract")
    check_structure(document, path)
    return _Reader(document, path).spec()


def spec_from_json(raw: Mapping[str, Any]) -> ModelSpec:
    """Read the spec that a manifest keeps; keys unknown to this version are ignored, but not those under `requires:`.

    Raises: NewerFormat, InvalidSpec.
    """
    wanted = raw.get("requires") or ()
    number = raw.get("contract")
    if wanted or (isinstance(number, int) and number > CONTRACT):
        what = f"requires {', '.join(map(str, wanted))}" if wanted else f"follows contract {number}"
        raise NewerFormat(
            f"model {raw.get('name')!r} {what}, which this modelrepo does not know; upgrade modelrepo-toolkit"
        )
    try:
        return _Reader(Document(raw, {}), SPEC_FILE).spec()
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidSpec(f"the manifest's copy is damaged: {error!r}") from None


class _Reader:
    def __init__(self, document: Document, path: str) -> None:
        self.document, self.path = document, path
        self.raw: Mapping[str, Any] = document.value

    def fail(self, at: Path, message: str) -> InvalidSpec:
        where = ".".join(map(str, at))
        return InvalidSpec(f"{where}: {message}", path=self.path, line=self.document.line(at), key=where)

    def spec(self) -> ModelSpec:
        raw = self.raw
        module, _, attribute = raw["entrypoint"].partition(":")
        checkpoints = {name: _checkpoint(source) for name, source in (raw.get("checkpoints") or {}).items()}
        inputs = raw.get("inputs")
        for name, declared in (inputs or {}).items():
            self.read(("inputs", name), check_declaration, declared)
        self.check_variables(raw.get("env") or {}, raw.get("secrets") or ())
        return ModelSpec(
            contract=raw["contract"],
            name=raw["name"],
            entrypoint=Entrypoint(module, attribute),
            raw=raw,
            code=tuple(raw.get("code") or (".",)),
            checkpoints=checkpoints,
            inputs=inputs,
            outputs=raw.get("outputs") or {},
            size=self.size(inputs),
            stages=self.stages(checkpoints),
            accelerators=self.accelerators(),
            host=self.host(),
            env=raw.get("env") or {},
            config=raw.get("config") or {},
            secrets=tuple(raw.get("secrets") or ()),
            swap=raw.get("swap", "auto"),
        )

    def read(self, at: Path, parse: Callable[[V], T], value: V) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise self.fail(at, str(error)) from None

    def size(self, inputs: Mapping[str, Any] | None) -> str | None:
        text: str | None = self.raw.get("size")
        if text is None:
            return None
        names = self.read(("size",), size_expression.names_in, text)
        for name in sorted(names - set(inputs or {}) if inputs is not None else ()):
            raise self.fail(("size",), f"{name!r} is no input{near(name, inputs or ())}")
        for name in sorted(names if inputs is not None else ()):
            if inputs is not None and "default" not in inputs[name] and inputs[name].get("required") is not True:
                raise self.fail(("size",), f"the input {name!r} may be missing; give it a default or required: true")
        return text

    def stages(self, checkpoints: Mapping[str, CheckpointSource]) -> tuple[StageSpec, ...]:
        declared = self.raw.get("stages")
        if declared is None:
            return (StageSpec("run"),)
        stages: list[StageSpec] = []
        for index, stage in enumerate(declared):
            at: Path = ("stages", index)
            name = stage["name"]
            if name in RESERVED_STAGES:
                raise self.fail((*at, "name"), f"{name!r} is called by the worker itself; name the stage otherwise")
            if name in [known.name for known in stages]:
                raise self.fail((*at, "name"), f"the stage {name!r} is there twice")
            on = stage.get("on", "gpu")
            for key in ("gpus", "gpu_memory") if on == "cpu" else ():
                if key in stage:
                    raise self.fail((*at, key), "a stage on cpu has none; take it out or set on: gpu")
            if "batch_wait" in stage and stage.get("max_batch", 1) == 1:
                raise self.fail((*at, "batch_wait"), "a stage without batches waits for none; set max_batch above 1")
            for position, checkpoint in enumerate(stage.get("checkpoints") or ()):
                if checkpoint not in checkpoints:
                    where = (*at, "checkpoints", position)
                    raise self.fail(where, f"{checkpoint!r} is no key of checkpoints{near(checkpoint, checkpoints)}")
            stages.append(
                StageSpec(
                    name=name,
                    on=on,
                    gpus=0 if on == "cpu" else stage.get("gpus", 1),
                    gpu_memory_bytes=self.size_of((*at, "gpu_memory"), stage.get("gpu_memory")),
                    host_memory_bytes=self.size_of((*at, "host_memory"), stage.get("host_memory")),
                    max_batch=stage.get("max_batch", 1),
                    batch_wait_s=self.read((*at, "batch_wait"), parse_duration, stage["batch_wait"])
                    if "batch_wait" in stage
                    else 0.0,
                    timeout_s=self.read((*at, "timeout"), parse_duration, stage["timeout"])
                    if "timeout" in stage
                    else DEFAULT_STAGE_TIMEOUT_S,
                    checkpoints=tuple(stage["checkpoints"]) if stage.get("checkpoints") is not None else None,
                )
            )
        return tuple(stages)

    def accelerators(self) -> tuple[AcceleratorRule, ...]:
        declared = self.raw.get("accelerators") or ()
        if isinstance(declared, Mapping):
            return tuple(AcceleratorRule(kind, extra) for kind, extra in declared.items())
        for index, rule in enumerate(declared):
            self.read(("accelerators", index, "when"), parse_condition, rule["when"])
        return tuple(AcceleratorRule(rule["when"], rule.get("extra")) for rule in declared)

    def host(self) -> HostNeeds:
        host = self.raw.get("host") or {}
        for command, versions in (host.get("commands") or {}).items():
            self.read(("host", "commands", command), parse_versions, versions)
        memory = (host.get("gpu") or {}).get("memory")
        return HostNeeds(
            commands=host.get("commands") or {},
            libraries=tuple(host.get("libraries") or ()),
            compiler=host.get("compiler", False),
            gpu_memory_bytes=self.size_of(("host", "gpu", "memory"), memory),
        )

    def size_of(self, at: Path, value: str | int | None) -> int | None:
        return None if value is None else self.read(at, parse_size, value)

    def check_variables(self, env: Mapping[str, str], secrets: Sequence[str]) -> None:
        places: list[tuple[Path, str]] = [(("env", name), name) for name in env]
        for at, name in [*places, *((("secrets", index), name) for index, name in enumerate(secrets))]:
            if name in RESERVED_ENV or name.startswith(RESERVED_ENV_PREFIXES):
                raise self.fail(at, f"{name} is set by the worker for each process; take it out")
        for name, value in env.items():
            if "\0" in value:
                raise self.fail(("env", name), "holds a NUL byte, which no variable can; take it out")


def _checkpoint(source: str | Mapping[str, Any]) -> CheckpointSource:
    if isinstance(source, str):
        return CheckpointSource(source)
    return CheckpointSource(source["source"], tuple(source.get("include") or ()), tuple(source.get("exclude") or ()))
