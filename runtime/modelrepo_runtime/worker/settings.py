"""What a worker is told: a flag, else MODELREPO_<OPTION>, else worker.yaml, else the default."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path, user_config_path

from modelrepo.contract.quantities import parse_size
from modelrepo.environments.uv_tool import LinkMode
from modelrepo.errors import InvalidInput

# Kubernetes and Slurm give 30 s between the warning and the kill; five are kept for the stop itself.
DEFAULT_GRACE_S = 25.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One worker's settings. `models` empty is every model with an active version; None is the place's own default."""

    repo: str | None
    queue: str | None
    files: str | None
    cache: Path
    cache_size: int | None
    models: tuple[str, ...]
    slots: str
    cpu_slots: int
    name: str
    secrets_dir: Path | None
    grace_s: float
    allow_builds: bool
    link_mode: LinkMode
    default_index: str | None
    find_links: tuple[str, ...]
    object_mirror: tuple[str, ...] = ()
    token_file: Path | None = None
    cluster: str = "local"
    handover: str | None = None
    stages: str = "auto"
    pool: str | None = None
    pool_size: int | None = None
    pool_numa_node: int | None = None
    share_slots: bool = True
    state_memory: Path | None = None
    adapter_cache: int | None = None
    adapter_files: int = 1000


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: how its text is read, what it is when nobody says, and what it means."""

    name: str
    read: Callable[[object], Any]
    default: Callable[[], Any]
    help: str

    @property
    def variable(self) -> str:
        return f"MODELREPO_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def _text(value: object) -> str:
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError("a text")
    return str(value).strip()


def _path(value: object) -> Path:
    return Path(_text(str(value))).expanduser().absolute()


def _size(value: object) -> int:
    if not isinstance(value, (str, int)):
        raise ValueError("a size, such as 500GB")
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError("a size, such as 500GB") from None


def _names(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ValueError("names with commas between them")
    return tuple(_text(part) for part in parts if str(part).strip())


def _count(value: object) -> int:
    if isinstance(value, bool) or not str(value).strip().isdigit():
        raise ValueError("a number, 0 or more")
    return int(str(value))


def _seconds(value: object) -> float:
    text = str(value).strip().removesuffix("s")
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("a number of seconds") from None
    if not 0 <= seconds < 86400:
        raise ValueError("a number of seconds below a day")
    return seconds


def _link_mode(value: object) -> str:
    if value not in ("hardlink", "copy"):
        raise ValueError("hardlink or copy")
    return str(value)


def _stages(value: object) -> str:
    if value not in ("auto", "cpu", "gpu"):
        raise ValueError("auto, cpu or gpu")
    return str(value)


def _switch(value: object) -> bool:
    known = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ValueError("true or false")
    return found


OPTIONS = (
    Option("repo", _text, lambda: None, "the repository's URL"),
    Option("queue", _text, lambda: None, "the queue's URL"),
    Option("files", _text, lambda: None, "where inputs and outputs of jobs are kept; default beside the queue"),
    Option("token_file", _path, lambda: None, "a file with the token for a gateway; else MODELREPO_TOKEN"),
    Option("cache", _path, lambda: user_cache_path("modelrepo"), "versions, environments and locks of this box"),
    Option("cache_size", _size, lambda: None, "what the cache may hold, such as 500GB; default the whole disk"),
    Option("pool", _text, lambda: None, "a folder on tmpfs to load checkpoints from, or none; default on /dev/shm"),
    Option("pool_size", _size, lambda: None, "what the pool may hold, such as 200GiB; default half of the memory"),
    Option("pool_numa_node", _count, lambda: None, "the memory node that the pool lies on, such as far or CXL memory"),
    Option("models", _names, tuple, "serve only these models; default every model that has an active version"),
    Option("share_slots", _switch, lambda: True, "slots go round where there are more models than slots"),
    Option("slots", _text, lambda: "auto", "auto, none, 8x1 (eight slots of one device), 2x4, or 0,1,2,3;4,5"),
    Option("cpu_slots", _count, lambda: 0, "slots on the CPU, beside those on accelerators"),
    Option("name", _text, socket.gethostname, "this worker's name in `modelrepo status`"),
    Option("secrets_dir", _path, lambda: None, "a folder with a file for each secret that models name"),
    Option("grace", _seconds, lambda: DEFAULT_GRACE_S, "seconds from SIGTERM in which jobs finish or are handed back"),
    Option("allow_builds", _switch, lambda: False, "let this box compile packages that have no wheel"),
    Option("link_mode", _link_mode, lambda: "hardlink", "hardlink, or copy: each environment has files of its own"),
    Option("default_index", _text, lambda: None, "the package index to install from"),
    Option("find_links", _names, tuple, "folders or pages of wheels to install from"),
    Option("object_mirror", _names, tuple, "copies of the repository to read objects from first"),
    Option("cluster", _text, lambda: "local", "the boxes that share accelerators: CPU slots work for these"),
    Option("handover", _text, lambda: None, "storage of the cluster for what stages hand over; default with the files"),
    Option("stages", _stages, lambda: "auto", "cpu or gpu: only stages on it; auto: what the slot can run"),
    Option("adapter_cache", _size, lambda: None, "what adapters of jobs may take, such as 20GiB; default 10GiB"),
    Option("adapter_files", _count, lambda: 1000, "how many adapters of jobs are kept"),
    Option("state_memory", _path, lambda: None, "a folder on tmpfs for states that jobs save; default in /dev/shm"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one setting came from: a flag, a variable, a file or nowhere."""

    name: str
    value: Any
    origin: str


def default_file() -> Path:
    """Return where worker.yaml is looked for when none is named."""
    return user_config_path("modelrepo") / "worker.yaml"


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[WorkerSettings, tuple[Source, ...]]:
    """Decide every setting. A flag that is None was not given; a `file` that was named must exist.

    Raises:
        InvalidInput: a value cannot be read; the message names the flag, variable or file that holds it.
    """
    from_file = _read_file(file if file is not None else default_file(), must_exist=file is not None)
    sources = tuple(_decide(option, flags, environ, *from_file) for option in OPTIONS)
    values: dict[str, Any] = {source.name: source.value for source in sources}
    values["grace_s"] = values.pop("grace")
    return WorkerSettings(**{field.name: values[field.name] for field in fields(WorkerSettings)}), sources


def print_config(sources: tuple[Source, ...]) -> str:
    """Write the settings as a worker.yaml, with the origin of each beside it."""
    lines = []
    for source in sources:
        value = source.value
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        written = yaml.safe_dump({source.name: plain}, default_flow_style=True, width=10_000).strip()[1:-1]
        lines.append(f"{written}  # {source.origin}")
    return "\n".join(lines) + "\n"


def _decide(
    option: Option, flags: Mapping[str, object], environ: Mapping[str, str], file: Path, told: Mapping[str, object]
) -> Source:
    candidates = (
        (flags.get(option.name), option.flag),
        (environ.get(option.variable) or None, option.variable),
        (told.get(option.name), str(file)),
    )
    for value, origin in candidates:
        if value is None or value == ():
            continue
        try:
            return Source(option.name, option.read(value), origin)
        except ValueError as error:
            raise InvalidInput(f"cannot read {option.name} {value!r} from {origin}: give {error}") from None
    return Source(option.name, option.default(), "default")


def _read_file(file: Path, *, must_exist: bool) -> tuple[Path, Mapping[str, object]]:
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise InvalidInput(f"cannot read the worker's settings: {file} does not exist") from None
        return file, {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read the worker's settings {file}: {' '.join(str(error).split())}") from None
    if told is None:
        return file, {}
    known = [option.name for option in OPTIONS]
    if not isinstance(told, dict):
        raise InvalidInput(f"cannot read the worker's settings {file}: it is no mapping; write `key: value` lines")
    for key in told:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise InvalidInput(f"cannot use {key!r} in {file}: there is no such setting; {hint}")
    return file, told
