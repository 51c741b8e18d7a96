"""What a push does about the environment: lock it, list it, and lay ready the wheels that no index has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from modelrepo import canonical
from modelrepo.contract.spec import ModelSpec
from modelrepo.environments.carried import build_wheel, copy_wheel, copy_wheels, parse_wheel, source_digest
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.interpreters import (
    Interpreter,
    check_new_enough,
    choose_interpreter,
    inspect,
    version_specifier,
)
from modelrepo.environments.lock import (
    PROJECT_FILE,
    LockedPackage,
    Project,
    ensure_lock,
    locked_packages,
    read_lock,
    read_project,
    without_machine_paths,
)
from modelrepo.environments.offers import FolderWheels
from modelrepo.environments.processes import full_disk_told
from modelrepo.environments.record import NO_EXTRA, CarriedWheel, EnvironmentRecord, Member, Requirement
from modelrepo.environments.requirements import Exported, export, pin
from modelrepo.environments.uv_tool import Uv
from modelrepo.errors import InterpreterMissing, InvalidInput

PYTHON_VERSION_FILE = ".python-version"


@dataclass(frozen=True, slots=True)
class PreparedEnvironment:
    """An environment as a push publishes it; `carried` are files under the work folder."""

    record: EnvironmentRecord
    carried: tuple[Path, ...]
    python: Path
    lock: Path
    lock_created: bool

    def wheels(self) -> FolderWheels:
        """Return the files as EnvironmentCache.ensure takes them."""
        return FolderWheels.carried_by(self.record, {path.name: path for path in self.carried})


def prepare(
    folder: Path,
    spec: ModelSpec,
    *,
    work: Path,
    index: IndexSettings,
    python: Path | None = None,
    locked: bool = False,
    lock: bool = False,
    cache: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> PreparedEnvironment:
    """Read, or make, the lock of a model's folder and gather what must travel with it into `work`.

    A missing lock is made unless `locked`; where CI is set, only with `lock`. `cache` is the box's cache folder, whose
    uv cache is used. Raises: LockOutOfDate, InterpreterMissing, InvalidInput, EnvironmentFailed, Unreachable.
    """
    env = os.environ if environ is None else environ
    project = read_project(folder.resolve())
    interpreter = _interpreter(project, python)
    check_new_enough(interpreter)
    uv = Uv(index, cache=None if cache is None else cache / "uv")
    may_create = not locked and (lock or not env.get("CI"))
    work.mkdir(parents=True, exist_ok=True)
    with full_disk_told(work, f"the environment of {spec.name}"):
        created = ensure_lock(uv, project, interpreter, may_create=may_create)
        record = _gather(project, spec, _Gathering(uv, interpreter, work))
    files = tuple(work / wheel.filename for wheel in record.carried)
    return PreparedEnvironment(record, files, interpreter.path, project.lock, created)


def environment_digest(lock: canonical.Json, copied: Mapping[str, str], members: tuple[Member, ...]) -> str:
    """Return the digest of FORMAT: the lock without machine paths, carried wheels' and members' content.

    A wheel built from a member counts by the member's source: two builds of one source may differ in their bytes.
    """
    return canonical.digest(
        {
            "lock": lock,
            "carried": dict(sorted(copied.items())),
            "members": {member.name: member.sha256 for member in members},
        }
    )


def _gather(project: Project, spec: ModelSpec, gathering: _Gathering) -> EnvironmentRecord:
    tree = read_lock(project.lock)
    packages = tuple(package for package in locked_packages(tree, project) if not package.itself)
    extras: list[str | None] = list(dict.fromkeys(rule.extra for rule in spec.accelerators)) or [None]
    interpreter = gathering.interpreter
    exports = {extra: export(gathering.uv, project, interpreter, extra, packages) for extra in extras}
    requirements = {
        extra or NO_EXTRA: tuple(gathering.requirement(line) for line in lines) for extra, lines in exports.items()
    }
    members = tuple(sorted(gathering.members, key=lambda member: member.name))
    return EnvironmentRecord(
        python=interpreter.minor,
        requires_python=project.requires_python,
        digest=environment_digest(without_machine_paths(tree), gathering.copied, members),
        pyproject_sha256=canonical.sha256(project.text),
        extras=tuple(extra for extra in extras if extra is not None),
        requirements=requirements,
        carried=tuple(sorted(gathering.carried, key=lambda wheel: wheel.filename)),
        members=members,
    )


def _interpreter(project: Project, python: Path | None) -> Interpreter:
    wanted = _versions(project.requires_python, f"requires-python in {project.folder / PROJECT_FILE}")
    if python is not None:
        found = inspect(python)
        if found is None:
            raise InterpreterMissing(f"{python} is no CPython that runs; name another one")
        if not wanted.contains(found.version):
            raise InterpreterMissing(f"{python} is {found.version}, {project.name} wants {wanted}; name another one")
        return found
    return choose_interpreter(wanted & _pinned_python(project))


def _pinned_python(project: Project) -> SpecifierSet:
    for folder in dict.fromkeys((project.folder, project.root)):
        path = folder / PYTHON_VERSION_FILE
        try:
            lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            if line and not line.startswith("#"):
                return _versions(line, str(path))
    return SpecifierSet()


def _versions(text: str, where: str) -> SpecifierSet:
    try:
        return version_specifier(text)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None


class _Gathering:
    """Copies or builds each package that lies on this box once, however many extras install it."""

    def __init__(self, uv: Uv, interpreter: Interpreter, work: Path) -> None:
        self.uv, self.interpreter, self._work = uv, interpreter, work
        self._versions: dict[tuple[str, str], str] = {}
        self.carried: list[CarriedWheel] = []
        self.copied: dict[str, str] = {}
        self.members: list[Member] = []

    def requirement(self, line: Exported) -> Requirement:
        package = line.package
        key = (package.name, str(sorted(package.source.items(), key=str)) + str(package.version))
        if key not in self._versions:
            self._versions[key] = self._gather(package)
        carried = package.wheels or package.directory or package.sdist
        return pin(Exported(package, line.marker, () if carried else line.hashes), self._versions[key])

    def _gather(self, package: LockedPackage) -> str:
        if package.directory is None and package.wheels:
            copied = copy_wheels(package, self.interpreter.minor, self._work)
            self.carried += [wheel for _, wheel in copied]
            self.copied |= {wheel.filename: wheel.sha256 for _, wheel in copied}
            if copied:
                return parse_wheel(copied[0][1].filename).version
        source = package.directory or package.sdist
        if source is None:
            return package.version or ""
        built = build_wheel(self.uv, source, self.interpreter, self._work)
        wheel = copy_wheel(built, self._work)
        parsed = parse_wheel(wheel.filename)
        self.carried.append(wheel)
        self.members.append(Member(parsed.name, parsed.version, source_digest(source)))
        return parsed.version
