"""Which lines install an environment: carried wheels as files, everything else as pins for the box's own index."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

from packaging.markers import Marker, default_environment

from modelrepo.environments.carried import choose_wheel, is_carried, supported_tags
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import EnvironmentRecord, Requirement
from modelrepo.environments.requirements import install_line
from modelrepo.environments.wheel_store import WheelStore
from modelrepo.errors import EnvironmentFailed


@dataclass(frozen=True, slots=True)
class WantedEnvironment:
    """One environment for one Python of this box; carried wheels come out of `wheels`."""

    record: EnvironmentRecord
    extra: str | None
    interpreter: Interpreter
    wheels: WheelStore

    def lines(self) -> tuple[list[str], bool]:
        """Return what to install, and whether an index is needed for it."""
        tags = supported_tags(self.interpreter)
        environment: dict[str, str | AbstractSet[str]] = {
            **cast(dict[str, str], default_environment()),
            "python_version": self.interpreter.minor,
            "python_full_version": self.interpreter.version,
            "implementation_version": self.interpreter.version,
            "extra": "",
        }
        lines, needs_index = [], False
        for requirement in self.record.for_extra(self.extra):
            if requirement.marker is not None and not Marker(requirement.marker).evaluate(environment):
                continue
            wheel = choose_wheel(requirement, self.record.carried, tags)
            if wheel is None:
                self._refuse_without_wheel(requirement)
                needs_index = True
            lines.append(install_line(requirement, None if wheel is None else (self.wheels.path(wheel), wheel.sha256)))
        return lines, needs_index

    def _refuse_without_wheel(self, requirement: Requirement) -> None:
        if requirement.hashes and not is_carried(requirement, self.record.carried):
            return
        raise EnvironmentFailed(
            f"{requirement} travels with the version, but not for {self.interpreter}; "
            "put its wheel for this platform beside the others, lock and push again"
        )
