"""Which lines install an environment: wheels that lie ready as files, all else as pins for the box's own index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from packaging.markers import Marker, default_environment

from modelrepo.environments.carried import is_carried, supported_tags
from modelrepo.environments.interpreters import Interpreter, choose_interpreter, inspect, version_specifier
from modelrepo.environments.offers import OfferedWheel, as_offer, choose_offer
from modelrepo.environments.record import EnvironmentRecord, Requirement
from modelrepo.environments.requirements import install_line
from modelrepo.environments.wheel_store import WheelStore
from modelrepo.errors import Corrupt, EnvironmentFailed, InterpreterMissing


@dataclass(frozen=True, slots=True)
class Plan:
    """What an environment is installed from."""

    lines: tuple[str, ...]
    from_index: tuple[Requirement, ...]
    """What no wheel lies ready for."""
    wheels: tuple[OfferedWheel, ...]


@dataclass(frozen=True, slots=True)
class WantedEnvironment:
    """One environment for one Python of this box; wheels that lie ready come out of `wheels`."""

    record: EnvironmentRecord
    extra: str | None
    interpreter: Interpreter
    wheels: WheelStore

    def plan(self) -> Plan:
        """Choose a wheel for each requirement and bring those here. Raises: Corrupt, EnvironmentFailed, Unreachable."""
        wanted = tuple(applicable(self.record, self.extra, self.interpreter))
        offered = self.wheels.offered(self.extra, self.interpreter) if wanted else ()
        chosen = {one: wheel for one in wanted if (wheel := self._choose(one, offered)) is not None}
        files = self.wheels.gather(dict.fromkeys(chosen.values()))
        lines = []
        for requirement in wanted:
            wheel = chosen.get(requirement)
            lines.append(install_line(requirement, None if wheel is None else (files[wheel], wheel.sha256)))
        return Plan(tuple(lines), tuple(one for one in wanted if one not in chosen), tuple(files))

    def _choose(self, requirement: Requirement, offered: Sequence[OfferedWheel]) -> OfferedWheel | None:
        tags = supported_tags(self.interpreter)
        wheel = choose_offer(requirement, offered, self.record.carried, tags)
        if wheel is not None:
            return wheel
        carried = self.record.carried
        promised = choose_offer(requirement, map(as_offer, carried), carried, tags)
        if promised is not None:
            raise Corrupt(
                f"the wheel {promised.filename} (sha256:{promised.sha256}) travels with the version, but was not "
                "brought along; push the version again",
                path=promised.filename,
                digest=promised.sha256,
            )
        if requirement.hashes and not is_carried(requirement, carried):
            return None
        raise EnvironmentFailed(
            f"{requirement} travels with the version, but not for {self.interpreter}; "
            "put its wheel for this platform beside the others, lock and push again"
        )


def interpreter_for(record: EnvironmentRecord, python: Path | None = None) -> Interpreter:
    """Return the Python of this box that an environment stands on, the named one if there is one.

    Raises: InterpreterMissing.
    """
    wanted = version_specifier(record.python) & version_specifier(record.requires_python)
    if python is None:
        return choose_interpreter(wanted)
    found = inspect(python)
    if found is None or not wanted.contains(found.version):
        has = f"is {found.version}" if found else "is no CPython that runs"
        raise InterpreterMissing(f"{python} {has}, the environment wants {wanted}; name another one")
    return found


def applicable(record: EnvironmentRecord, extra: str | None, interpreter: Interpreter) -> Iterator[Requirement]:
    """Yield what an environment holds on this box: the requirements whose markers are true here."""
    environment: dict[str, str | AbstractSet[str]] = {
        **cast(dict[str, str], default_environment()),
        "python_version": interpreter.minor,
        "python_full_version": interpreter.version,
        "implementation_version": interpreter.version,
        "extra": "",
    }
    for requirement in record.for_extra(extra):
        if requirement.marker is None or Marker(requirement.marker).evaluate(environment):
            yield requirement
