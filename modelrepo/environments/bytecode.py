"""Bytecode of installed distributions, compiled once per box and shared by all environments with the same source.

<cache>/bytecode/<python tag>/<digest of a distribution's .py files>/<path>.pyc

A .pyc here carries the hash of its source, which Python checks at import: a wrong one costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelrepo.environments.processes import Finished, run_process
from modelrepo.errors import EnvironmentFailed

_COMPILE = """
import compileall, os, py_compile, sys
mode = py_compile.PycInvalidationMode.CHECKED_HASH
for name in sys.stdin.buffer.read().split(bytes(1)):
    if name:
        compileall.compile_file(os.fsdecode(name), quiet=2, invalidation_mode=mode)
"""
_SHARE = 100  # files that are worth a process of their own


_Bring = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class _Distribution:
    key: str
    sources: tuple[str, ...]


def add_bytecode(
    venv: Path,
    store: Path,
    *,
    environment: Mapping[str, str],
    copy: bool = False,
    stop: Callable[[], bool] | None = None,
) -> int:
    """Give an environment its bytecode, from `store` where that has it; returns how many files had to be compiled.

    By links, or with `copy` as files of its own.
    Files that are no source of this Python are left out. Raises: EnvironmentFailed, Stopped.
    """
    compiled, bring = 0, _copy if copy else _link
    for site in sorted(venv.glob("lib/python3*/site-packages")):
        missing = [one for one in _distributions(site) if not _bring_kept(one, store / one.key, site, bring)]
        files = [site / source for one in missing for source in one.sources]
        if files:
            _compile(venv, files, environment, stop)
            _keep(missing, site, store, venv.name, bring)
        compiled += len(files)
    return compiled


def _distributions(site: Path) -> Iterator[_Distribution]:
    for record in sorted(site.glob("*.dist-info/RECORD")):
        with record.open(newline="", encoding="utf-8") as stream:
            lines = (line for line in stream if ".py" in line)  # a few of many, with torch
            rows = sorted((row[0], row[1]) for row in csv.reader(lines) if len(row) >= 2 and row[0].endswith(".py"))
        inside = [(path, digest) for path, digest in rows if ".." not in path.split("/") and path[0] != "/"]
        if inside:
            key = hashlib.sha256("\n".join(f"{path} {digest}" for path, digest in inside).encode()).hexdigest()
            yield _Distribution(key, tuple(path for path, _ in inside))


def _compile(venv: Path, files: list[Path], environment: Mapping[str, str], stop: Callable[[], bool] | None) -> None:
    # Plain processes, no pool: its workers would wait for ever where their parent was killed.
    shares = max(1, min(os.cpu_count() or 1, len(files) // _SHARE))
    command = [str(venv / "bin" / "python"), "-I", "-S", "-c", _COMPILE]

    def compile_share(share: list[Path]) -> Finished:
        names = b"\0".join(os.fsencode(file) for file in share)
        return run_process(command, cwd=venv, env=environment, stdin=names, stop=stop)

    with ThreadPoolExecutor(shares) as threads:
        for done in threads.map(compile_share, [files[start::shares] for start in range(shares)]):
            if done.returncode != 0:
                raise EnvironmentFailed(f"cannot compile bytecode in {venv}: exit {done.returncode}", log=done.log)


def _bring_kept(one: _Distribution, kept: Path, site: Path, bring: _Bring) -> bool:
    """Bring a distribution's bytecode from where it is kept into `site`; False where it is not kept."""
    if not kept.is_dir():
        return False
    _bring_all(one.sources, kept, site, bring)
    return True


def _bring_all(sources: Iterable[str], start: Path, target: Path, bring: _Bring) -> None:
    # Thousands of files with torch: strings and system calls, no paths.
    source, folder, tag = os.fspath(start), os.fspath(target), _tag(target, start)
    made: set[str] = set()
    for name in sources:
        inside = _compiled(name, tag)
        parent = inside.rpartition("/")[0]
        if parent not in made:
            Path(folder, parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        with contextlib.suppress(FileNotFoundError):  # no source of this Python
            bring(f"{source}/{inside}", f"{folder}/{inside}")


def _keep(distributions: Iterable[_Distribution], site: Path, store: Path, name: str, bring: _Bring) -> None:
    """Keep the bytecode in `site` for other environments; what is kept is durable: nobody looks at it again."""
    kept = {store / f".{name}-{uuid.uuid4().hex[:8]}": one for one in distributions}
    for folder, one in kept.items():
        folder.mkdir(parents=True)
        _bring_all(one.sources, site, folder, bring)
    os.sync()
    for folder, one in kept.items():
        try:
            folder.rename(store / one.key)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # another build kept the same


def _tag(*folders: Path) -> str:
    """Return what names the bytecode of the Python that one of the folders is the site-packages of: cpython-311."""
    minor = next(one.parent.name for one in folders if one.parent.name.startswith("python"))
    return f"cpython-{minor.removeprefix('python').replace('.', '')}"


def _compiled(source: str, tag: str) -> str:
    """Return where Python keeps a source's bytecode: `x/__pycache__/y.cpython-311.pyc`."""
    folder, slash, name = source.rpartition("/")
    return f"{folder}{slash}__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def _copy(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copyfile(source, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)  # no more links to give, or none at all on this file system
