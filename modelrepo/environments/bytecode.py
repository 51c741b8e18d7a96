"""Bytecode of installed distributions, compiled once per box and shared by all environments with the same source.

<cache>/bytecode/<python tag>/<digest of a distribution's .py files>/<path>.pyc

A .pyc here carries the hash of its source, which Python checks at import: a wrong one costs time, never correctness.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path, PurePosixPath

from modelrepo.environments.processes import run_process
from modelrepo.errors import EnvironmentFailed

_COMPILE = """
import compileall, functools, os, py_compile, sys
from concurrent.futures import ProcessPoolExecutor
mode = py_compile.PycInvalidationMode.CHECKED_HASH
one = functools.partial(compileall.compile_file, quiet=2, invalidation_mode=mode)
files = [os.fsdecode(line) for line in sys.stdin.buffer.read().split(bytes(1)) if line]
if __name__ == "__main__":
    if len(files) < 200:
        list(map(one, files))
    else:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, files, chunksize=16))
"""


@dataclass(frozen=True, slots=True)
class _Distribution:
    key: str
    sources: tuple[str, ...]


def add_bytecode(
    venv: Path, store: Path, *, environment: Mapping[str, str], stop: Callable[[], bool] | None = None
) -> int:
    """Give an environment its bytecode, from `store` where that has it; returns how many files had to be compiled.

    Files that are no source of this Python are left out. Raises: EnvironmentFailed, Stopped.
    """
    compiled = 0
    for site in sorted(venv.glob("lib/python3*/site-packages")):
        missing = [one for one in _distributions(site) if not _link_tree(store / one.key, site)]
        files = [site / source for one in missing for source in one.sources]
        if files:
            _compile(venv, files, environment, stop)
        for one in missing:
            _keep(one, site, store, venv.name)
        compiled += len(files)
    return compiled


def _distributions(site: Path) -> Iterator[_Distribution]:
    for record in sorted(site.glob("*.dist-info/RECORD")):
        with record.open(newline="", encoding="utf-8") as stream:
            rows = sorted((row[0], row[1]) for row in csv.reader(stream) if len(row) >= 2 and row[0].endswith(".py"))
        inside = [(path, digest) for path, digest in rows if ".." not in PurePosixPath(path).parts and path[0] != "/"]
        if inside:
            key = hashlib.sha256("\n".join(f"{path} {digest}" for path, digest in inside).encode()).hexdigest()
            yield _Distribution(key, tuple(path for path, _ in inside))


def _compile(venv: Path, files: list[Path], environment: Mapping[str, str], stop: Callable[[], bool] | None) -> None:
    names = b"\0".join(os.fsencode(file) for file in files)
    command = [str(venv / "bin" / "python"), "-I", "-S", "-c", _COMPILE]
    done = run_process(command, cwd=venv, env=environment, stdin=names, stop=stop)
    if done.returncode != 0:
        raise EnvironmentFailed(f"cannot compile bytecode in {venv}: exit {done.returncode}", log=done.log)


def _link_tree(source: Path, target: Path) -> bool:
    """Link every file below `source` into `target`; False where there is no such tree."""
    if not source.is_dir():
        return False
    for folder, _, names in os.walk(source):
        inside = target / os.path.relpath(folder, source)
        if names:
            inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(Path(folder) / name, inside / name)
    return True


def _keep(one: _Distribution, site: Path, store: Path, name: str) -> None:
    kept = store / f".{name}-{uuid.uuid4().hex[:8]}"
    kept.mkdir(parents=True)
    for source in one.sources:
        compiled = Path(cache_from_source(source))
        tagged = compiled.parent / _tagged(compiled.name, site)
        if (site / tagged).is_file():
            (kept / tagged.parent).mkdir(parents=True, exist_ok=True)
            _link(site / tagged, kept / tagged)
    try:
        kept.rename(store / one.key)
    except OSError:
        shutil.rmtree(kept, ignore_errors=True)  # another build kept the same


def _tagged(name: str, site: Path) -> str:
    """Put the environment's Python into a name that this Python made: `x.cpython-311.pyc`."""
    minor = site.parent.name.removeprefix("python").replace(".", "")
    stem = name.rsplit(".", 2)[0]
    return f"{stem}.cpython-{minor}.pyc"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)  # no more links to give, or none at all on this file system
