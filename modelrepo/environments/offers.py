"""Wheels that can be had without an index, and which of them a box may take."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from packaging.tags import Tag

from modelrepo.environments.carried import parse_wheel
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord, Requirement
from modelrepo.errors import EnvironmentFailed


@dataclass(frozen=True, slots=True)
class OfferedWheel:
    """A wheel that lies ready. `built_from` is the sha256 of the source distribution that another box built it of."""

    filename: str
    sha256: str
    size_bytes: int
    built_from: str | None = None


class WheelSource(Protocol):
    """Where the wheels of one environment lie: in a repository's bundles, or in a folder of the box that pushes."""

    @property
    def version(self) -> str | None:
        """The version whose environment it is, for messages; None before it is published."""
        ...

    def offered(self, extra: str | None, interpreter: Interpreter) -> Sequence[OfferedWheel]:
        """List what may be of use to one extra, Python and platform; of equals the first is taken."""
        ...

    def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
        """Write wheels into `folder`, under their file names; the caller verifies them and moves them away.

        An earlier try may have left a part there, which may be gone on with or written over.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderWheels:
    """Wheels in folders of this box, as a push lays them ready."""

    files: Mapping[OfferedWheel, Path]
    version: str | None = None

    @classmethod
    def carried_by(cls, record: EnvironmentRecord, files: Mapping[str, Path]) -> Self:
        """Take the wheels that travel with a version from files by name."""
        return cls({as_offer(wheel): files[wheel.filename] for wheel in record.carried if wheel.filename in files})

    def offered(self, extra: str | None, interpreter: Interpreter) -> Sequence[OfferedWheel]:
        del extra, interpreter  # all of it may be of use
        return tuple(self.files)

    def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
        for wheel in wheels:
            if self.files[wheel].is_file():
                # Never a link: whoever wrote the source may write it again, and what is brought is shared.
                shutil.copyfile(self.files[wheel], folder / wheel.filename)


@dataclass(frozen=True, slots=True)
class JoinedWheels:
    """Wheels of this box, and others for what it lacks."""

    here: FolderWheels
    there: WheelSource

    @property
    def version(self) -> str | None:
        return self.here.version

    def offered(self, extra: str | None, interpreter: Interpreter) -> Sequence[OfferedWheel]:
        return (*self.here.offered(extra, interpreter), *self.there.offered(extra, interpreter))

    def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
        self.here.bring([wheel for wheel in wheels if wheel in self.here.files], folder)
        self.there.bring([wheel for wheel in wheels if wheel not in self.here.files], folder)


def as_offer(wheel: CarriedWheel) -> OfferedWheel:
    return OfferedWheel(wheel.filename, wheel.sha256, wheel.size_bytes)


def may_install(requirement: Requirement, wheel: OfferedWheel, carried: Iterable[CarriedWheel]) -> bool:
    """Tell whether the manifest trusts a wheel's bytes: by the lock's hashes, its own, or what it was built of."""
    if wheel.sha256 in {one.sha256 for one in carried} or f"sha256:{wheel.sha256}" in requirement.hashes:
        return True
    return wheel.built_from is not None and f"sha256:{wheel.built_from}" in requirement.hashes


def choose_offer(
    requirement: Requirement, offered: Iterable[OfferedWheel], carried: Sequence[CarriedWheel], tags: Sequence[Tag]
) -> OfferedWheel | None:
    """Return the offered wheel of a requirement that fits best, one that was built only where there is no other."""
    best: tuple[tuple[bool, int], OfferedWheel] | None = None
    for wheel in offered:
        rank = fitting_rank(requirement, wheel.filename, tags)
        if rank is None or not may_install(requirement, wheel, carried):
            continue
        place = (wheel.built_from is not None, rank)
        if best is None or place < best[0]:
            best = (place, wheel)
    return best[1] if best else None


def fitting_rank(requirement: Requirement, filename: str, tags: Sequence[Tag]) -> int | None:
    """Return how well a wheel's name fits a requirement and a Python, 0 the best; None where it does not."""
    try:
        parsed = parse_wheel(filename)
    except EnvironmentFailed:
        return None
    if (parsed.name, parsed.version) != (requirement.name, requirement.version):
        return None
    return min((place for place, tag in enumerate(tags) if tag in parsed.tags), default=None)
