"""Bundles: the wheels of one environment for one platform, as the repository keeps them beside versions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from modelrepo import canonical, layout
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord, wheel_from_json, wheel_json
from modelrepo.errors import Corrupt, NewerFormat

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Bundle:
    """Never changed once written; each wheel's bytes are the object of its sha256."""

    environment: str
    extra: str | None
    python_tag: str
    platform: str
    wheels: tuple[CarriedWheel, ...]

    def to_bytes(self) -> bytes:
        return canonical.dumps(
            {
                "format": FORMAT,
                "environment": self.environment,
                "extra": self.extra,
                "python": self.python_tag,
                "platform": self.platform,
                "wheels": [wheel_json(wheel) for wheel in self.wheels],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """Raises: NewerFormat, Corrupt."""
        try:
            raw = json.loads(data)
            if raw["format"] > FORMAT:
                raise NewerFormat(f"a bundle has the format {raw['format']}, this modelrepo reads {FORMAT}; upgrade it")
            wheels = tuple(wheel_from_json(wheel) for wheel in raw["wheels"])
            return cls(raw["environment"], raw["extra"], raw["python"], raw["platform"], wheels)
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"a bundle of wheels cannot be read: {error!r}", digest=canonical.sha256(data)) from None

    @property
    def key(self) -> str:
        """Its key in the repository."""
        sha256 = canonical.sha256(self.to_bytes())
        return layout.bundle(self.environment, self.extra, self.python_tag, self.platform, sha256)


def carried_bundle(record: EnvironmentRecord, extra: str | None, interpreter: Interpreter) -> Bundle:
    """Return the bundle that a push writes: every carried wheel, for the platform that it runs on."""
    return Bundle(record.digest, extra, interpreter.tag, interpreter.platform, record.carried)


def most_complete(bundles: Iterable[Bundle], record: EnvironmentRecord) -> Bundle | None:
    """Choose the bundle with most wheels of those that hold every carried one, bytes and all."""
    needed = {(wheel.filename, wheel.sha256) for wheel in record.carried}
    fitting = [one for one in bundles if needed <= {(wheel.filename, wheel.sha256) for wheel in one.wheels}]
    return max(fitting, key=lambda one: len(one.wheels), default=None)
