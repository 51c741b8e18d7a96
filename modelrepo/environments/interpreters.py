"""The Pythons that this box has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from modelrepo.errors import InterpreterMissing, InvalidInput

_ASK = (
    "import json, sys, sysconfig; print(json.dumps({'version': '%d.%d.%d' % sys.version_info[:3],"
    " 'implementation': sys.implementation.name, 'final': sys.version_info[3] == 'final',"
    " 'base': getattr(sys, '_base_executable', None) or sys.executable,"
    " 'platform': sysconfig.get_platform().replace('-', '_').replace('.', '_')}))"
)
# What runs a model inside its environment is written for this one.
OLDEST = (3, 9)
_ASK_TIMEOUT_S = 20.0
_NAME = re.compile(r"python3?(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython of this box. `path` is the real binary: no shim, no virtual environment's link."""

    path: Path
    version: str
    platform: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])

    @property
    def tag(self) -> str:
        return "cp" + self.minor.replace(".", "")

    def __str__(self) -> str:
        return f"Python {self.minor} on {self.platform}"


def version_specifier(text: str) -> SpecifierSet:
    """Read `3.11`, `3.11.7`, `>=3.11,<3.13` or `cpython-3.11`. Raises: InvalidInput."""
    plain = text.strip().removeprefix("cpython").removeprefix("@").removeprefix("-").removeprefix("python")
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        plain = f"=={plain}.*"
    elif re.fullmatch(r"\d+\.\d+\.\d+", plain):
        plain = f"=={plain}"
    try:
        return SpecifierSet(plain)
    except InvalidSpecifier:
        raise InvalidInput(f"{text!r} is no Python version; write it like 3.11 or '>=3.11'") from None


def named_interpreter(named: Path) -> Path:
    """Return the full path of a Python that somebody names by its path or as a command; a virtual one stays virtual.

    Raises: InterpreterMissing.
    """
    path = shutil.which(named)
    found = inspect(Path(path)) if path is not None else None
    if path is None or found is None:
        raise InterpreterMissing(f"{named} is no CPython that runs; name another one")
    check_new_enough(found)
    return Path(path).absolute()


def check_new_enough(interpreter: Interpreter) -> None:
    """Refuse a Python on which no model runs. Raises: InterpreterMissing."""
    if _order(interpreter.version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InterpreterMissing(
            f"{interpreter.path} is Python {interpreter.version}, models run on {oldest} and later; "
            "correct requires-python or .python-version, or name another one"
        )


def choose_interpreter(wanted: SpecifierSet, environ: Mapping[str, str] | None = None) -> Interpreter:
    """Prefer the Python that runs this, then the newest that fits. Raises: InterpreterMissing."""
    own = inspect(Path(sys.executable))
    if own is not None and wanted.contains(own.version):
        return own
    found = list(interpreters(environ))
    fitting = [one for one in found if wanted.contains(one.version)]
    if not fitting:
        versions = sorted({one.version for one in found}, key=_order)
        raise InterpreterMissing(
            f"no Python {wanted or 'at all'} on this box: it has {', '.join(versions) or 'none'}; "
            "install one, so that it is on PATH, in pyenv or in uv"
        )
    return max(fitting, key=lambda one: _order(one.version))


def interpreters(environ: Mapping[str, str] | None = None) -> Iterator[Interpreter]:
    """Yield each CPython of PATH, pyenv and uv once."""
    seen: set[Path] = set()
    for candidate in _candidates(os.environ if environ is None else environ):
        if _is_shim(candidate):
            continue
        found = inspect(candidate)
        if found is not None and found.path not in seen:
            seen.add(found.path)
            yield found


def inspect(path: Path) -> Interpreter | None:
    """Ask a binary what it is; None where it is no CPython that runs."""
    try:
        real = path.resolve(strict=True)
        # A virtual environment's link resolves to its base, which is what new environments stand on.
        return _asked(str(real), real.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _asked(path: str, mtime_ns: int) -> Interpreter | None:
    del mtime_ns  # part of the key: an upgraded binary is asked again
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_TIMEOUT_S,
            check=True,
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if told["implementation"] != "cpython" or not told["final"]:
        return None
    return Interpreter(Path(told["base"]).resolve(), told["version"], told["platform"])


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path(sys.executable)
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        if folder and Path(folder).is_dir():
            try:
                yield from sorted(path for path in Path(folder).iterdir() if _NAME.fullmatch(path.name))
            except OSError:
                continue
    home = Path(environ.get("HOME") or "~").expanduser()
    pyenv = Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    managed = Path(environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for root in (pyenv / "versions", managed):
        yield from sorted(root.glob("*/bin/python3"))


def _is_shim(path: Path) -> bool:
    # A shim answers for another version in another folder; the versions behind it are looked up themselves.
    return path.parent.name == "shims"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
