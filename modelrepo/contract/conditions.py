"""Which `accelerators:` entry a box satisfies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from modelrepo.errors import NoExtraFits

Kind = str
KINDS: tuple[Kind, ...] = ("cuda", "rocm", "cpu", "mps")
OTHER_KIND = re.compile(r"x-[a-z0-9]+")
"""Of accelerators that a plug-in of the worker's box brings; the prefix keeps misspelt names out."""
_CONDITION = re.compile(r"\s*((?:x-)?[a-z][a-z0-9]*)\s*((?:[<>=!~]=?).*)?")


@dataclass(frozen=True, slots=True)
class AcceleratorFacts:
    """What a slot offers; `version` is the newest CUDA or ROCm of its driver, `memory_bytes` that of one device."""

    kind: Kind
    version: str | None = None
    count: int = 0
    memory_bytes: int | None = None
    driver: str | None = None

    def __str__(self) -> str:
        return self.kind if self.version is None else f"{self.kind} {self.version}"


@dataclass(frozen=True, slots=True)
class AcceleratorRule:
    """`when` a slot satisfies the condition, the environment is built with `extra`."""

    when: str
    extra: str | None = None

    def __str__(self) -> str:
        return f"{self.when} ({self.extra or 'no extra'})"


def parse_condition(when: str) -> tuple[Kind, SpecifierSet]:
    """Read `cuda >= 12.8`. Raises: ValueError."""
    match = _CONDITION.fullmatch(when)
    kind = match[1] if match else when
    if match is None or not (kind in KINDS or OTHER_KIND.fullmatch(kind)):
        kinds = ", ".join((*KINDS, "x-NAME of a plug-in"))
        raise ValueError(f"{when!r} is no condition; write it like 'cuda >= 12.8' (kinds: {kinds})")
    try:
        versions = SpecifierSet(match[2] or "")
    except InvalidSpecifier:
        raise ValueError(f"{when!r} holds no version comparison; write it like 'cuda >= 12.8, < 14'") from None
    if match[2] and kind in ("cpu", "mps"):
        raise ValueError(f"{when!r}: {kind} has no version; write just {kind!r}")
    return kind, versions


def satisfies(facts: AcceleratorFacts, when: str) -> bool:
    """Tell whether a slot satisfies a condition; an unknown version satisfies no comparison."""
    kind, versions = parse_condition(when)
    # torch's macOS wheels are the same for both, so what admits a CPU admits Apple's GPU.
    if facts.kind != kind and (facts.kind, kind) != ("mps", "cpu"):
        return False
    if not len(versions):
        return True
    try:
        return facts.version is not None and versions.contains(Version(facts.version), prereleases=True)
    except InvalidVersion:
        return False


def choose_extra(rules: Sequence[AcceleratorRule], facts: AcceleratorFacts) -> str | None:
    """Return the extra of the first rule that the slot satisfies; without rules every slot fits and none is needed.

    Raises: NoExtraFits.
    """
    if not rules:
        return None
    for rule in rules:
        if satisfies(facts, rule.when):
            return rule.extra
    wanted = "; ".join(str(rule) for rule in rules)
    raise NoExtraFits(
        f"no entry of accelerators: fits this box: it offers {facts}, the model takes {wanted}; "
        "run it on such a box, or add an entry and push again"
    )
