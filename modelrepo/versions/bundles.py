"""Bundles: the wheels of one environment for one platform, kept beside versions and shared by all that need them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelrepo import canonical, layout
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import Corrupt, NewerFormat
from modelrepo.formats import FORMAT, check_format
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.content import Content, of_files
from modelrepo.versions.manifest import FileRecord, read_files


@dataclass(frozen=True, slots=True)
class Bundles:
    """Bundle documents by key, and the objects that they name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)


def bundle_carried(
    environment: EnvironmentRecord, wheels: Sequence[Path], interpreter: Interpreter, content: Content
) -> Bundles:
    """Describe the wheels that a push carries as one bundle for this box's platform; nothing where there are none."""
    if not wheels:
        return Bundles()
    records = content.describe(of_files(sorted(wheels, key=lambda wheel: wheel.name)))
    document = canonical.dumps(
        {
            "format": FORMAT,
            "environment": environment.digest,
            "extra": None,
            "python": interpreter.tag,
            "platform": interpreter.platform,
            "wheels": [record.to_json() for record in records],
        }
    )
    key = layout.bundle(environment.digest, None, interpreter.tag, interpreter.platform, canonical.sha256(document))
    objects = {chunk.sha256: chunk.size_bytes for record in records for chunk in record.chunks}
    return Bundles({key: document}, objects)


def find_carried(store: ObjectStore, environment: EnvironmentRecord) -> tuple[FileRecord, ...]:
    """Find the carried wheels of an environment in any of its bundles, by their sha256.

    A bundle that cannot be read is passed over where the others have every wheel.

    Raises:
        Corrupt: a wheel is in none of them, or in none that is what its name says.
        NewerFormat: only bundles of a newer format may have it.
    """
    if not environment.carried:
        return ()
    known: dict[str, FileRecord] = {}
    unreadable: Corrupt | NewerFormat | None = None
    for stat in store.list(f"{layout.ENVIRONMENTS}{environment.digest}/"):
        try:
            known |= {record.sha256: record for record in read_bundle(stat.key, store.read(stat.key))}
        except (Corrupt, NewerFormat) as error:
            unreadable = error
    for wheel in environment.carried:
        if wheel.sha256 not in known:
            if unreadable is not None:
                raise unreadable
            raise Corrupt(
                f"wheel {wheel.filename} (sha256:{wheel.sha256}) is in no bundle of environment {environment.digest} "
                f"in {store.url}; push the version again",
                path=wheel.filename,
                digest=wheel.sha256,
            )
    return tuple(replace(known[wheel.sha256], path=wheel.filename) for wheel in environment.carried)


def read_bundle(key: str, data: bytes) -> tuple[FileRecord, ...]:
    """Read the wheels of a bundle document; raises Corrupt or NewerFormat."""
    expected = key.rpartition("/")[2].removesuffix(".json")
    if canonical.sha256(data) != expected:
        raise Corrupt(f"{key} holds other bytes than its name says; remove it and push again", path=key)
    try:
        tree = json.loads(data)
        check_format(tree, key)
        records = read_files(tree["wheels"], key)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{key} is no bundle ({error!r}); remove it and push again", path=key) from error
    nested = next((record.path for record in records if "/" in record.path), None)
    if nested is not None:
        raise Corrupt(f"{key} lists {nested!r}, which is no wheel's name", path=key)
    return records
