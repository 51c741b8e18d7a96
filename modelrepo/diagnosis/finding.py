"""What a diagnosis says: one line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from modelrepo.errors import ModelRepoError, Unreachable


class Standing(Enum):
    """How it stands: in order, worth knowing, or in the way of work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` is what to do, `facts` what a program may want.

    `unreachable`: the store did not answer, or refused our credentials.
    """

    about: str
    standing: Standing
    found: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found, in the order in which it was looked at."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is in the way of work."""
        return all(finding.standing is not Standing.FAIL for finding in self.findings)

    @property
    def unreachable(self) -> bool:
        return any(finding.unreachable for finding in self.findings)


def ok(about: str, found: str, **facts: Any) -> Finding:
    return Finding(about, Standing.OK, found, facts=facts)


def warn(about: str, found: str, advice: str = "", **facts: Any) -> Finding:
    return Finding(about, Standing.WARN, found, advice, facts)


def fail(about: str, found: str, advice: str = "", **facts: Any) -> Finding:
    return Finding(about, Standing.FAIL, found, advice, facts)


def failed(about: str, error: ModelRepoError) -> Finding:
    """Return the finding of what ended with an error; its message says what to do."""
    return Finding(about, Standing.FAIL, str(error), unreachable=isinstance(error, Unreachable))


def looked_at(about: str, look: Callable[[], Finding | Iterable[Finding]]) -> tuple[Finding, ...]:
    """Look, and make a finding of the error too: one thing out of order must not hide the others."""
    try:
        found = look()
        return (found,) if isinstance(found, Finding) else tuple(found)
    except ModelRepoError as error:
        return (failed(about, error),)
