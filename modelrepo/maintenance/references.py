"""Everything that a repository still needs: what versions and bundles name, and what pushes under way count on."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from modelrepo import layout
from modelrepo.errors import Corrupt, ObjectNotFound
from modelrepo.publication.leases import GRACE_S, read_digests
from modelrepo.stores.port import ObjectStat, ObjectStore
from modelrepo.versions.bundles import read_bundle
from modelrepo.versions.manifest import Manifest
from modelrepo.window import Window

LEASE_COUNTS_S = 2 * GRACE_S
"""A push renews its lease after half a grace, and leaves it for one after it has published."""

_DIGEST = re.compile("[0-9a-f]{64}")
_MANIFEST, _TOMBSTONE = "/manifest.json", "/deleted.json"

Dooms = Callable[[str, float], bool]
"""Told an environment that nothing needs and the Last-Modified of its newest bundle: are its bundles to go?"""


def keep_all(_environment: str, _modified: float) -> bool:
    """Let every bundle stay."""
    return False


@dataclass(slots=True)
class References:
    """What may not be deleted. Digests are the 32 bytes that they are: a repository may have millions.

    `leased`: objects and environments that a push under way counts on. `doomed`: the bundles that are to go, by
    environment; what only they name is not needed any more.
    """

    objects: set[bytes] = field(default_factory=set)
    environments: set[str] = field(default_factory=set)
    leased: set[bytes] = field(default_factory=set)
    doomed: dict[str, list[ObjectStat]] = field(default_factory=dict)
    manifests: int = 0
    bundles: int = 0

    def leases(self, digest: str) -> bool:
        """Say whether a push counts on this object or environment."""
        return bytes.fromhex(digest) in self.leased

    def names(self, digest: str) -> bool:
        """Say whether a version or a bundle names this object."""
        return bytes.fromhex(digest) in self.objects


def read_references(
    store: ObjectStore, *, now: float, dooms: Dooms = keep_all, without: str | None = None
) -> References:
    """Read all leases, manifests and bundles, by listings of this moment. `now`: the store's own time.

    `without`: the key of a manifest that is not to count.

    A version counts until its tombstone is there, whatever its history says.

    Raises:
        Corrupt, NewerFormat: something cannot be read, so nobody can say what it needs.
    """
    found = References()
    guard = threading.Lock()

    def read_lease(key: str) -> None:
        try:
            digests = read_digests(key, store.read(key))
        except ObjectNotFound:
            return  # it had expired, and another prune has tidied it away
        with guard:
            found.leased.update(map(bytes.fromhex, digests))

    def read_manifest(key: str) -> None:
        try:
            manifest = Manifest.from_bytes(store.read(key), name=key)
        except ObjectNotFound as error:
            raise Corrupt(f"{key} was listed in {store.url} and cannot be read; run it again", path=key) from error
        with guard:
            found.manifests += 1
            found.environments.add(manifest.environment.digest)
            found.objects.update(map(bytes.fromhex, manifest.objects()))

    def read_one_bundle(key: str) -> None:
        try:
            records = read_bundle(key, store.read(key))
        except ObjectNotFound:
            return  # swept by another prune, which took it for one that nothing needs
        with guard:
            found.bundles += 1
            found.objects.update(bytes.fromhex(chunk.sha256) for record in records for chunk in record.chunks)

    with Window() as window:
        for stat in counting_leases(store, now=now):
            window.submit(stat.size_bytes, read_lease, stat.key)
    with Window() as window:
        for stat in live_manifests(store):
            if stat.key != without:
                window.submit(stat.size_bytes, read_manifest, stat.key)
    with Window() as window:
        for environment, bundles in bundles_by_environment(store):
            needed = environment in found.environments or found.leases(environment)
            if not needed and dooms(environment, max(stat.modified for stat in bundles)):
                found.doomed[environment] = bundles
                continue
            for stat in bundles:
                window.submit(stat.size_bytes, read_one_bundle, stat.key)
    return found


def live_manifests(store: ObjectStore) -> Iterator[ObjectStat]:
    """Yield the manifest of every version that is not deleted.

    Any manifest below `models/` counts, also one whose model or version this modelrepo would not name so.
    """
    deleted = ""  # a tombstone sorts before the manifest beside it
    for stat in store.list(layout.MODELS):
        if stat.key.endswith(_TOMBSTONE):
            deleted = stat.key.removesuffix(_TOMBSTONE)
        elif stat.key.endswith(_MANIFEST) and stat.key.removesuffix(_MANIFEST) != deleted:
            yield stat


def lease_families(store: ObjectStore) -> dict[str, list[ObjectStat]]:
    """Return the files of every push lease by the push's id: renewals and batches lie beside the first."""
    families: defaultdict[str, list[ObjectStat]] = defaultdict(list)
    for stat in store.list(layout.PUSHES):
        families[stat.key.removeprefix(layout.PUSHES).partition(".")[0]].append(stat)
    return families


def expired(family: Iterable[ObjectStat], now: float) -> bool:
    """Say whether a lease counts no more: a family counts as long as the newest of its files."""
    return now - max(stat.modified for stat in family) >= LEASE_COUNTS_S


def counting_leases(store: ObjectStore, *, now: float) -> list[ObjectStat]:
    """Return the files of the leases that count."""
    families = lease_families(store).values()
    return [stat for family in families if not expired(family, now) for stat in family]


def bundles_by_environment(store: ObjectStore) -> Iterator[tuple[str, list[ObjectStat]]]:
    """Yield every environment that has bundles, with them; what lies there under other names is passed over."""
    listed = (stat for stat in store.list(layout.ENVIRONMENTS) if stat.key.endswith(".json"))
    for environment, bundles in groupby(listed, key=lambda stat: layout.environment_of(stat.key)):
        if _DIGEST.fullmatch(environment):
            yield environment, list(bundles)
