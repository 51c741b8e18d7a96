"""Wheels that travel with a version: copied from folders of this box, or built from members' sources."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pathspec
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from modelrepo import canonical
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.lock import LockedPackage
from modelrepo.environments.record import CarriedWheel, Requirement
from modelrepo.environments.uv_tool import Uv, failed
from modelrepo.errors import Corrupt, EnvironmentFailed

_NOT_SOURCE = frozenset(
    {".git", ".hg", ".venv", "venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".tox", ".nox"}
    | {"node_modules", "build", "dist"}
)
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelName:
    """What a wheel's file name says."""

    filename: str
    name: str
    version: str
    tags: frozenset[Tag]


def parse_wheel(filename: str) -> WheelName:
    """Raises: EnvironmentFailed."""
    if "/" in filename or "\\" in filename or not filename.isprintable():  # build and platform tags may hold anything
        raise EnvironmentFailed(f"{filename!r} is no wheel: it is not the name of a file")
    try:
        name, version, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise EnvironmentFailed(f"{filename} is no wheel: {error}") from None
    return WheelName(filename, canonicalize_name(name), str(version), tags)


def for_python(wheel: WheelName, minor: str) -> bool:
    """Tell whether a wheel is for this Python, on whatever platform."""
    major, number = (int(part) for part in minor.split("."))
    for tag in wheel.tags:
        kind, digits = tag.interpreter[:2], tag.interpreter[2:]
        if kind == "py" and tag.abi == "none" and _at_most(digits, major, number):
            return True
        if kind == "cp" and tag.abi == "abi3" and _at_most(digits, major, number):
            return True
        if tag.interpreter == f"cp{major}{number}" and tag.abi in (f"cp{major}{number}", "none"):
            return True
    return False


@lru_cache(maxsize=16)
def supported_tags(interpreter: Interpreter) -> tuple[Tag, ...]:
    """Return the tags of a Python of this box, the best first."""
    major, number = (int(part) for part in interpreter.minor.split("."))
    tags = cpython_tags((major, number), abis=[interpreter.tag])
    return (*tags, *compatible_tags((major, number), interpreter=interpreter.tag))


def is_carried(requirement: Requirement, carried: Iterable[CarriedWheel]) -> bool:
    """Tell whether any platform's wheel of a requirement is carried; then no index is asked for it."""
    wanted = (requirement.name, requirement.version)
    return any((wheel.name, wheel.version) == wanted for wheel in (parse_wheel(one.filename) for one in carried))


def copy_wheels(package: LockedPackage, minor: str, target: Path) -> list[tuple[Path, CarriedWheel]]:
    """Copy what this box has of a package, for every platform. Raises: Corrupt, EnvironmentFailed."""
    copied = []
    for path in package.wheels:
        if not for_python(parse_wheel(path.name), minor):
            continue
        if not path.is_file():
            raise EnvironmentFailed(f"uv.lock names {path}, which is not there; put it back or run `uv lock`")
        wheel = copy_wheel(path, target)
        wanted = package.hashes.get(path.name)
        if wanted is not None and wanted != f"sha256:{wheel.sha256}":
            raise Corrupt(
                f"{path} is not the wheel that uv.lock names: {wanted} was wanted, sha256:{wheel.sha256} found; "
                "put the right file there or run `uv lock`",
                path=str(path),
                digest=wanted,
            )
        copied.append((target / path.name, wheel))
    return copied


def copy_wheel(path: Path, target: Path) -> CarriedWheel:
    """Copy a wheel and return what was copied, so that a file changed meanwhile is recorded as it travels."""
    (target / path.name).unlink(missing_ok=True)
    shutil.copyfile(path, target / path.name)
    return describe_wheel(target / path.name)


def describe_wheel(path: Path) -> CarriedWheel:
    return CarriedWheel(path.name, file_sha256(path), path.stat().st_size)


def build_wheel(uv: Uv, source: Path, interpreter: Interpreter, work: Path) -> Path:
    """Build a source tree or sdist into a wheel under `work`. Raises: EnvironmentFailed, Unreachable."""
    out = work / ("built-" + hashlib.sha256(str(source).encode()).hexdigest()[:12])
    shutil.rmtree(out, ignore_errors=True)
    # Configuration above the work folder is not this source's, and in /tmp anybody's.
    arguments: list[str | Path] = ["build", "--no-config", "--wheel", "--out-dir", out]
    built = uv.run([*arguments, *uv.index.arguments(), "--python", interpreter.path, source], cwd=work)
    if built.returncode != 0:
        raise failed(f"cannot build a wheel of {source}", built)
    wheels = sorted(out.glob("*.whl"))
    if len(wheels) != 1:
        raise EnvironmentFailed(f"the build of {source} made {len(wheels)} wheels, one was wanted", log=built.log)
    return wheels[0]


def source_digest(source: Path) -> str:
    """Return the sha256 of a member's source: its files, but for ignored ones, built ones and models that lie in it."""
    if source.is_file():
        return file_sha256(source)
    ignored = pathspec.GitIgnoreSpec.from_lines(_ignore_lines(source))
    found: dict[str, str] = {}
    pending = [source]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            relative = path.relative_to(source).as_posix()
            if path.name in _NOT_SOURCE or path.name.endswith((".egg-info", ".pyc")):
                continue
            if path.is_dir() and not path.is_symlink():
                if not ignored.match_file(relative + "/") and not (path / "model.yaml").exists():
                    pending.append(path)
            elif path.is_file() and not ignored.match_file(relative):
                found[relative] = file_sha256(path)
    return canonical.digest(found)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _ignore_lines(source: Path) -> list[str]:
    try:
        return (source / ".gitignore").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _at_most(digits: str, major: int, number: int) -> bool:
    if not digits.isdigit():
        return False
    return int(digits[0]) == major and (len(digits) == 1 or int(digits[1:]) <= number)
