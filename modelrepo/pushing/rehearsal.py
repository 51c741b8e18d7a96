"""A push's environment: lock it, build it, and try the packed code in it before anybody else has to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelrepo.box_cache.cache_folder import default_cache
from modelrepo.contract.conditions import AcceleratorFacts, choose_extra
from modelrepo.contract.spec import ModelSpec
from modelrepo.environments import EnvironmentCache, PreparedEnvironment, prepare
from modelrepo.environments.interpreters import Interpreter, inspect
from modelrepo.environments.offers import WheelSource
from modelrepo.errors import InterpreterMissing, NoExtraFits
from modelrepo.progress import Progress
from modelrepo.pushing.packing import SourceFile, code_files
from modelrepo.pushing.push_options import CheckRequest, PushCheck, PushOptions


def prepare_environment(folder: Path, spec: ModelSpec, options: PushOptions, work: Path) -> PreparedEnvironment:
    """Lock the environment and collect, below `work`, the wheels that no other box could get."""
    return prepare(
        folder,
        spec,
        python=options.python,
        locked=options.locked,
        lock=options.lock,
        index=options.index_settings(),
        cache=options.cache or default_cache(),
        work=work,
    )


def interpreter_of(prepared: PreparedEnvironment) -> Interpreter:
    """Return the interpreter that an environment was prepared with; raises InterpreterMissing."""
    interpreter = inspect(prepared.python)
    if interpreter is None:
        raise InterpreterMissing(f"{prepared.python} is no CPython that runs; name another with --python")
    return interpreter


def check_push(
    folder: Path,
    spec: ModelSpec,
    prepared: PreparedEnvironment,
    options: PushOptions,
    check: PushCheck | None,
    wheels: WheelSource,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[str, ...]:
    """Build the environment and let `check` try the packed code in it; returns what could not be checked."""
    if options.check != "import" or check is None:
        return ()
    try:
        extra = choose_extra(spec.accelerators, options.facts or AcceleratorFacts(kind="cpu"))
    except NoExtraFits as error:
        return (f"the entrypoint was not imported, the environment was only resolved: {error}",)
    environments = EnvironmentCache(options.cache or default_cache(), index=options.index_settings())
    with (
        environments.hold(prepared.record.digest),  # no version names it yet
        tempfile.TemporaryDirectory(prefix="modelrepo-check-") as scratch,
    ):
        venv = environments.ensure(
            prepared.record,
            extra=extra,
            wheels=wheels,
            python=prepared.python,
            progress=progress,
            stop=stop,
        )
        staged = Path(scratch) / "code"
        stage(code_files(folder, spec), staged)
        check(CheckRequest(staged, spec, venv / "bin" / "python"))
    return ()


def stage(files: tuple[SourceFile, ...], target: Path) -> None:
    """Copy code as it will be published: what ignore rules leave out must be missed here, not on a worker."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.file, path)
        path.chmod(file.mode)
