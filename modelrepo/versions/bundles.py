"""Bundles: the wheels of one environment for one platform, kept beside versions and shared by all that need them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelrepo import canonical, layout
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import Corrupt, NewerFormat
from modelrepo.formats import FORMAT, check_format
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import FileRecord, read_files


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle document. `built_from` has, by file name, the sdist's sha256 of each wheel that was built."""

    environment: str
    extra: str | None
    python: str
    platform: str
    wheels: tuple[FileRecord, ...]
    built_from: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> tuple[str, bytes]:
        """Return the bundle's key and bytes."""
        wheels = [
            {**record.to_json(), **({"built_from": built} if (built := self.built_from.get(record.path)) else {})}
            for record in sorted(self.wheels, key=lambda record: record.path)
        ]
        document = canonical.dumps(
            {
                "format": FORMAT,
                "environment": self.environment,
                "extra": self.extra,
                "python": self.python,
                "platform": self.platform,
                "wheels": wheels,
            }
        )
        key = layout.bundle(self.environment, self.extra, self.python, self.platform, canonical.sha256(document))
        return key, document

    def objects(self) -> dict[str, int]:
        return {chunk.sha256: chunk.size_bytes for record in self.wheels for chunk in record.chunks}


@dataclass(frozen=True, slots=True)
class Bundles:
    """Bundle documents by key, and the objects that they name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)

    def add(self, bundle: Bundle) -> str:
        """Add a bundle; returns its key."""
        key, data = bundle.document()
        self.documents[key] = data
        self.objects.update(bundle.objects())
        return key


def read_bundles(store: ObjectStore, environment_digest: str) -> tuple[list[Bundle], Corrupt | NewerFormat | None]:
    """Read every bundle of an environment, and say what was wrong with one that could not be read."""
    found: list[Bundle] = []
    unreadable: Corrupt | NewerFormat | None = None
    for key in sorted(stat.key for stat in store.list(f"{layout.ENVIRONMENTS}{environment_digest}/")):
        try:
            bundle = parse_bundle(key, store.read(key))
        except (Corrupt, NewerFormat) as error:
            unreadable = error
            continue
        if bundle.environment == environment_digest:
            found.append(bundle)
    return found, unreadable


def check_carried(
    environment: EnvironmentRecord, known: Iterable[str], unreadable: Corrupt | NewerFormat | None, url: str
) -> None:
    """Make sure that bundles, which have the wheels `known` by sha256, hold every wheel that travels with a version.

    Raises:
        Corrupt: a wheel is in none of them, or in none that is what its name says.
        NewerFormat: only bundles of a newer format may have it.
    """
    there = set(known)
    for wheel in environment.carried:
        if wheel.sha256 not in there:
            if unreadable is not None:
                raise unreadable
            raise Corrupt(
                f"wheel {wheel.filename} (sha256:{wheel.sha256}) is in no bundle of environment {environment.digest} "
                f"in {url}; push the version again",
                path=wheel.filename,
                digest=wheel.sha256,
            )


def read_bundle(key: str, data: bytes) -> tuple[FileRecord, ...]:
    """Read the wheels of a bundle document; raises Corrupt or NewerFormat."""
    return parse_bundle(key, data).wheels


def parse_bundle(key: str, data: bytes) -> Bundle:
    """Read a bundle document; raises Corrupt or NewerFormat."""
    expected = key.rpartition("/")[2].removesuffix(".json")
    if canonical.sha256(data) != expected:
        raise Corrupt(f"{key} holds other bytes than its name says; remove it and push again", path=key)
    try:
        tree = json.loads(data)
        check_format(tree, key)
        records = read_files(tree["wheels"], key)
        built = {wheel["path"]: str(wheel["built_from"]) for wheel in tree["wheels"] if wheel.get("built_from")}
        extra = None if tree["extra"] is None else str(tree["extra"])
        environment, python, platform = (str(tree[name]) for name in ("environment", "python", "platform"))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{key} is no bundle ({error!r}); remove it and push again", path=key) from error
    nested = next((record.path for record in records if "/" in record.path), None)
    if nested is not None:
        raise Corrupt(f"{key} lists {nested!r}, which is no wheel's name", path=key)
    return Bundle(environment, extra, python, platform, records, built)
