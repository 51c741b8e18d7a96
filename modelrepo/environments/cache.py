"""Virtual environments of this box: built once, never changed, shared by every version that has the same lock.

<cache>/environments/<digest>/<extra or _>/<python tag>-<platform>/          READY written last
<cache>/environments/<digest>/<extra or _>/<python tag>-<platform>+copy/     the same with bytes of its own
<cache>/environments/<digest>/<extra or _>/.building-<name>-<random>/        what is being built under that name
<cache>/environments/<digest>/<extra or _>/.lock-<name>                      flock of who builds it
<cache>/uv/                                                                  uv's cache, on the same file system
<cache>/wheels/  <cache>/bytecode/                                           carried wheels, compiled files: by content
<cache>/holds/environment-<digest>                                           flock: shared by who builds or uses one
<cache>/holds/supplies                                                       flock: shared by who builds any
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.contract.conditions import AcceleratorFacts
from modelrepo.environments.bytecode import add_bytecode
from modelrepo.environments.durability import make_durable
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.installing import Plan, WantedEnvironment, interpreter_for
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import WheelSource
from modelrepo.environments.processes import Finished, full_disk_told
from modelrepo.environments.record import NO_EXTRA, EnvironmentRecord
from modelrepo.environments.torch_build import check_torch_build
from modelrepo.environments.uv_tool import LinkMode, Uv, failed
from modelrepo.environments.wheel_store import WheelStore
from modelrepo.errors import EnvironmentFailed, InvalidInput
from modelrepo.holds import Hold, take, try_take

Progress = Callable[[str, int, int | None], None]

READY = "READY"
# A uv.toml of the user, or a pyproject.toml above the cache, may name another folder to install into.
_NO_CONFIG = ("--no-config",)
_UNBUILT = re.compile(
    r"(?i)[`'\"]?([A-Za-z0-9][\w.-]*)==[^\s`'\"]+[`'\"]?[^\n]*(?:no usable wheels|no wheels|building source dist)"
)


@dataclass(frozen=True, slots=True)
class EnvironmentCache:
    """Builds and finds environments under `root`, the box's cache folder; threads and processes may share it.

    Their files are hard links to uv's cache, so what writes into one writes into all; with `link_mode` copy each
    environment has bytes of its own.
    """

    root: Path
    index: IndexSettings = field(default_factory=IndexSettings)
    allow_builds: bool = False
    link_mode: LinkMode = "hardlink"

    def ensure(
        self,
        record: EnvironmentRecord,
        *,
        extra: str | None,
        wheels: WheelSource | None = None,
        python: Path | None = None,
        accelerator: AcceleratorFacts | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Path:
        """Return the virtual environment, building it where this box lacks it; its Python is `<venv>/bin/python`.

        What `wheels` offers is installed from there, and where that is everything no index is asked. With
        `accelerator`, a torch that cannot use it is refused. Whoever uses what is returned has a `hold` on it.

        Raises: InterpreterMissing, EnvironmentFailed, Corrupt (a wheel), Unreachable (index, wheels), NoSpace, Stopped.
        """
        interpreter = interpreter_for(record, python)
        if (extra or NO_EXTRA) not in record.requirements:
            known = ", ".join(record.requirements) or "none"
            raise InvalidInput(
                f"the version was pushed without an environment for the extra {extra or 'none'!r} (it has {known})"
            )
        venv = self.path(record, extra, interpreter)
        if not is_ready(venv):
            with self._alone(venv, record, progress, stop):
                if not is_ready(venv):  # somebody else may have built it meanwhile
                    incoming = f".incoming-{record.digest[:16]}-{extra or NO_EXTRA}-{venv.name}"
                    kept = WheelStore(self.root.absolute() / "wheels", wheels, incoming)
                    with full_disk_told(self.root, f"environment {record.digest[:12]}"):
                        self._build(venv, WantedEnvironment(record, extra, interpreter, kept), progress, stop)
        with contextlib.suppress(OSError):
            os.utime(venv / READY)  # its last use, which eviction from a full cache goes by
        if accelerator is not None:
            check_torch_build(venv, accelerator, extra)
        return venv

    def find(self, record: EnvironmentRecord, *, extra: str | None, python: Path | None = None) -> Path | None:
        """Return the environment if this box has it whole, None otherwise. Raises: InterpreterMissing."""
        venv = self.path(record, extra, interpreter_for(record, python))
        return venv if is_ready(venv) else None

    def path(self, record: EnvironmentRecord, extra: str | None, interpreter: Interpreter) -> Path:
        """Return where an environment lies, or would lie."""
        name = f"{interpreter.tag}-{interpreter.platform}" + (
            "" if self.link_mode == "hardlink" else f"+{self.link_mode}"
        )
        return self.folder / record.digest / (extra or NO_EXTRA) / name

    def hold(self, digest: str) -> Hold:
        """Keep an environment from being evicted, be it here yet or not, for as long as the hold lasts."""
        return self._held(f"environment-{digest}", None)

    @property
    def folder(self) -> Path:
        return self.root.absolute() / "environments"

    def _build(
        self, venv: Path, wanted: WantedEnvironment, progress: Progress | None, stop: Callable[[], bool] | None
    ) -> None:
        for leftover in venv.parent.glob(f".building-{venv.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        building = venv.parent / f".building-{venv.name}-{uuid.uuid4().hex[:8]}"
        uv = Uv(self.index, cache=self.root.absolute() / "uv", link_mode=self.link_mode)
        try:
            _tell(progress, f"making an environment of Python {wanted.interpreter.version}")
            made = uv.run(
                ["venv", *_NO_CONFIG, "--relocatable", "--no-project", "--python", wanted.interpreter.path, building],
                cwd=venv.parent,
                stop=stop,
            )
            if made.returncode != 0:
                raise failed(f"cannot make a virtual environment below {venv.parent}", made)
            self._install(uv, building, wanted, progress, stop)
            make_durable(building, self.root.absolute() / "uv", copied=self.link_mode == "copy")
            _write_ready(building, wanted)
            if venv.exists():
                remove_environment(venv)  # never READY, or its interpreter is gone
            building.rename(venv)
            _sync_folder(venv.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _install(
        self,
        uv: Uv,
        building: Path,
        wanted: WantedEnvironment,
        progress: Progress | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        plan = wanted.plan()
        if not plan.lines:
            return
        assert_ours(building, self.folder)
        listed = building / "requirements.txt"
        listed.write_text("\n".join(plan.lines) + "\n", "utf-8")
        arguments: list[str | Path] = ["pip", "sync", *_NO_CONFIG, "--require-hashes"]
        arguments += ["--python", building / "bin" / "python"]
        # Hashes are required, so the best match of several indexes is the right file or none.
        arguments += ["--index-strategy", "unsafe-best-match"]
        arguments += [] if self.allow_builds else ["--no-build"]
        arguments += uv.index.arguments() if plan.from_index else ["--no-index"]
        _tell(progress, f"installing {len(plan.lines)} packages")
        done = uv.run([*arguments, listed], cwd=building, offline=not plan.from_index, stop=stop)
        if done.returncode != 0:
            wanted.wheels.remove_rotten(plan.wheels)
            raise self._why(wanted, plan, done)
        _tell(progress, "compiling bytecode")
        store = self.root.absolute() / "bytecode" / wanted.interpreter.tag
        add_bytecode(building, store, environment=uv.environment(), copy=self.link_mode == "copy", stop=stop)

    def _why(self, wanted: WantedEnvironment, plan: Plan, done: Finished) -> Exception:
        what = f"cannot install environment {wanted.record.digest[:12]} (extra {wanted.extra or 'none'})"
        unbuilt = _UNBUILT.search(done.stderr)
        if unbuilt and not self.allow_builds:
            return EnvironmentFailed(
                f"{what}: {unbuilt[1]} has no wheel for {wanted.interpreter}, and a box compiles only when it is told "
                f"to; {_vendor_advice(wanted)}, or let this one compile it with --allow-builds",
                log=done.log,
            )
        error = failed(what, done)
        if plan.from_index and wanted.wheels.source is not None:
            names = ", ".join(str(one) for one in plan.from_index[:3]) + ", .." * (len(plan.from_index) > 3)
            error.args = (f"{error} (in no bundle: {names}; {_vendor_advice(wanted)})",)
        return error

    @contextmanager
    def _alone(
        self, venv: Path, record: EnvironmentRecord, progress: Progress | None, stop: Callable[[], bool] | None
    ) -> Iterator[None]:
        """Let nobody else build this environment, nor evict it or what it is built from meanwhile."""
        what = "another process built the same environment"
        with self._held(f"environment-{record.digest}", stop), self._held("supplies", stop):
            venv.parent.mkdir(parents=True, exist_ok=True)
            lock = venv.parent / f".lock-{venv.name}"
            alone = try_take(lock, shared=False)
            if alone is None:
                _tell(progress, "waiting for another process that builds this environment")
                alone = take(lock, shared=False, stop=stop, what=what)
            with alone:
                yield

    def _held(self, name: str, stop: Callable[[], bool] | None) -> Hold:
        folder = self.root.absolute() / "holds"
        folder.mkdir(parents=True, exist_ok=True)
        return take(folder / name, shared=True, stop=stop, what="room was made in the cache")


def is_ready(venv: Path) -> bool:
    """Tell whether an environment is whole, and the Python that it stands on still there."""
    return (venv / READY).is_file() and (venv / "bin" / "python").exists()


def remove_environment(venv: Path) -> None:
    """Remove an environment that nobody uses. Cut short at any point, nothing half is taken for whole."""
    (venv / READY).unlink(missing_ok=True)
    _sync_folder(venv)
    shutil.rmtree(venv)


def assert_ours(venv: Path, folder: Path) -> None:
    """Refuse to install into anything but a virtual environment below `folder`. Raises: EnvironmentFailed."""
    real, ours = venv.resolve(), folder.resolve()
    python = venv / "bin" / "python"
    if ours not in real.parents or not (real / "pyvenv.cfg").is_file() or not python.is_symlink():
        raise EnvironmentFailed(f"{venv} is no virtual environment below {folder}; nothing was installed")


def _vendor_advice(wanted: WantedEnvironment) -> str:
    """Say which command puts the wheels of an environment beside its version."""
    version = wanted.wheels.source.version if wanted.wheels.source is not None else None
    if version is None:
        return f"push with --vendor from a box with {wanted.interpreter} and a compiler, which builds it once"
    extra = f" --extra {wanted.extra}" if wanted.extra else ""
    return f"run `modelrepo vendor {version}{extra}` on a box with {wanted.interpreter}, an index and a compiler"


def _write_ready(building: Path, wanted: WantedEnvironment) -> None:
    facts = {
        "digest": wanted.record.digest,
        "extra": wanted.extra,
        "python": wanted.interpreter.version,
        "base": str(wanted.interpreter.path),
    }
    with (building / READY).open("w", encoding="utf-8") as stream:
        json.dump(facts, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _tell(progress: Progress | None, phase: str) -> None:
    if progress is not None:
        progress(phase, 0, None)
