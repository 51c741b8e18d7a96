"""What a lock installs, extra by extra: uv resolves markers, forks and conflicts, and we read its list."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as RequirementLine
from packaging.utils import canonicalize_name

from modelrepo.environments.index_settings import local_path
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.lock import LockedPackage, Project
from modelrepo.environments.record import Requirement
from modelrepo.environments.uv_tool import Uv, failed
from modelrepo.errors import EnvironmentFailed, InvalidInput

_HASH = re.compile(r"--hash=(\S+)")


@dataclass(frozen=True, slots=True)
class Exported:
    """A line of uv's list: a pin, or a package whose files lie on this box (`package`)."""

    package: LockedPackage
    marker: str | None
    hashes: tuple[str, ...]


def export(
    uv: Uv, project: Project, interpreter: Interpreter, extra: str | None, locked: Iterable[LockedPackage]
) -> tuple[Exported, ...]:
    """Return what the model's environment holds with one extra; the model's own project is not among it.

    Raises: InvalidInput, EnvironmentFailed.
    """
    if extra is not None and canonicalize_name(extra) not in {canonicalize_name(known) for known in project.extras}:
        known = ", ".join(project.extras) or "none"
        raise InvalidInput(
            f"accelerators: names the extra {extra!r}, which {project.folder / 'pyproject.toml'} lacks (it has {known})"
        )
    arguments: list[str | Path] = ["export", "--frozen", "--no-header", "--no-annotate", "--no-emit-project"]
    arguments += ["--no-default-groups", "--format", "requirements-txt", "--python", interpreter.path]
    listed = uv.run([*arguments, *(("--extra", extra) if extra else ())], cwd=project.folder, offline=True)
    if listed.returncode != 0:
        raise failed(f"cannot read {project.lock}", listed)
    known_packages = tuple(locked)
    lines = listed.stdout.replace("\\\n", " ").splitlines()
    return tuple(_exported(line.strip(), project, known_packages) for line in lines if line.strip() and line[0] != "#")


def pin(exported: Exported, version: str) -> Requirement:
    """Return the line as the manifest keeps it."""
    return Requirement(canonicalize_name(exported.package.name), version, exported.hashes, exported.marker)


def install_line(requirement: Requirement, wheel: tuple[Path, str] | None) -> str:
    """Return a line for `uv pip sync --require-hashes`; `wheel` is a carried file with its sha256."""
    if wheel is None:
        return " ".join([str(requirement), *(f"--hash={one}" for one in requirement.hashes)])
    path, sha256 = wheel
    return f"{requirement.name} @ {path.resolve().as_uri()} --hash=sha256:{sha256}"


def _exported(line: str, project: Project, packages: tuple[LockedPackage, ...]) -> Exported:
    hashes = tuple(_HASH.findall(line))
    text = _HASH.sub("", line).strip()
    plain, _, marker = text.partition(" ; ")
    marker_text = marker.strip() or None
    path = plain.removeprefix("-e ").strip()
    if plain.startswith("-e ") or path.startswith((".", "/", "file:")):
        return Exported(_at(project.root, path, packages, line), marker_text, hashes)
    try:
        requirement = RequirementLine(text)
    except InvalidRequirement as error:
        raise EnvironmentFailed(f"uv listed {line!r}, which is no requirement: {error}") from None
    name = canonicalize_name(requirement.name)
    versions = {specifier.version for specifier in requirement.specifier}
    fitting = [one for one in packages if canonicalize_name(one.name) == name]
    if requirement.url is not None:
        return Exported(_by_url(requirement.url, fitting, project), marker_text, hashes)
    # Of one version from two sources, the line without a hash is the one from a folder of wheels.
    for package in sorted(fitting, key=lambda one: bool(one.wheels) == bool(hashes)):
        if package.version in versions:
            return Exported(package, marker_text, hashes)
    raise EnvironmentFailed(f"uv listed {line!r}, which {project.lock} does not hold; run `uv lock` again")


def _at(root: Path, address: str, packages: tuple[LockedPackage, ...], line: str) -> LockedPackage:
    # uv writes a path as a file URL, as it is, or with %20 for its blanks, by where it lies.
    for path in (local_path(address) or Path(address), Path(unquote(address))):
        real = (root / path).resolve()
        for package in packages:
            if package.directory == real or package.sdist == real or real in package.wheels:
                return package
    raise EnvironmentFailed(f"uv listed {line!r}, which the lock does not hold; run `uv lock` again")


def _by_url(url: str, packages: list[LockedPackage], project: Project) -> LockedPackage:
    for package in packages:
        if package.wheels or package.directory or package.sdist:
            return package
    raise InvalidInput(
        f"{project.folder / 'pyproject.toml'} takes a package from {url}: other boxes may not reach it; "
        "build its wheel into a folder, and name that folder as find-links or as a path source"
    )
