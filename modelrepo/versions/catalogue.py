"""Which models and versions a repository holds. Manifests never change, so what was read once is remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import Corrupt, InvalidName, ModelNotFound, ObjectNotFound, VersionNotFound
from modelrepo.names import check_model_name, check_version_id, near_names, sort_key
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import Manifest

REMEMBERED_MANIFESTS = 64  # a manifest of a large model is a megabyte


@dataclass(frozen=True, slots=True)
class Listed:
    """A version as a listing shows it; `published` is the store's own clock, epoch seconds."""

    version: str
    published: float
    deleted: bool


class Catalogue:
    """Reads one store; safe to use from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._manifests: OrderedDict[tuple[str, str], tuple[Manifest, str]] = OrderedDict()
        self._digests: dict[tuple[str, str], str] = {}

    def models(self) -> list[str]:
        """Return the models that have a version, an active file or a history."""
        found = {layout.model_of(stat.key) for stat in self._store.list(layout.MODELS)}
        return sorted(name for name in found if name is not None and _allowed(check_model_name, name))

    def listed(self, model: str) -> list[Listed]:
        """Return every version of a model, deleted ones too, oldest publication first."""
        published: dict[str, float] = {}
        deleted: set[str] = set()
        for stat in self._store.list(layout.versions_folder(model)):
            named = layout.version_of(stat.key)
            if named is not None:
                published[named[1]] = stat.modified
            elif stat.key.endswith("/deleted.json"):
                deleted.add(stat.key.split("/")[-2])
        published = {version: at for version, at in published.items() if _allowed(check_version_id, version)}
        order = sorted(published, key=lambda version: (published[version], sort_key(version)))
        return [Listed(version, published[version], version in deleted) for version in order]

    def versions(self, model: str) -> list[str]:
        """Return the ids of the versions that are not deleted, oldest publication first."""
        return [one.version for one in self.listed(model) if not one.deleted]

    def digest(self, model: str, version: str) -> str:
        """Return a version's digest, 64 hex digits.

        Raises:
            VersionNotFound, ModelNotFound
        """
        known = self._digests.get((model, version))
        return known if known is not None else self.manifest(model, version)[1]

    def is_deleted(self, model: str, version: str) -> bool:
        """Say whether a version has a tombstone."""
        try:
            self._store.stat(layout.tombstone(model, version))
        except ObjectNotFound:
            return False
        return True

    def manifest(self, model: str, version: str) -> tuple[Manifest, str]:
        """Return a version's manifest and its digest.

        Raises:
            VersionNotFound, ModelNotFound: with near names.
            Corrupt, NewerFormat
        """
        name = (check_model_name(model), check_version_id(version))
        with self._guard:
            if name in self._manifests:
                self._manifests.move_to_end(name)
                return self._manifests[name]
        key = layout.manifest(model, version)
        try:
            data = self._store.read(key)
        except ObjectNotFound as error:
            raise self.unknown(model, version) from error
        manifest = Manifest.from_bytes(data, name=key)
        if (manifest.model, manifest.version) != name:
            raise Corrupt(
                f"{key} is that of {manifest.model}@{manifest.version}, which was moved; restore it from a copy",
                path=key,
            )
        found = (manifest, sha256(data))
        with self._guard:
            self._manifests[name] = found
            self._digests[name] = found[1]
            while len(self._manifests) > REMEMBERED_MANIFESTS:
                self._manifests.popitem(last=False)
        return found

    def unknown(self, model: str, version: str | None = None) -> ModelNotFound | VersionNotFound:
        """Return the error for a version, or a model, that is not there."""
        listed = self.versions(model)
        if version is None or not listed:
            models = self.models()
            if model in models:
                return VersionNotFound(f"{model} has no version in {self._store.url}; push one")
            return ModelNotFound(f"model {model!r} is not in {self._store.url}; {_near(model, models, 'models')}")
        return VersionNotFound(f"{model} has no version {version!r}; {_near(version, listed, 'versions')}")


def _near(name: str, known: list[str], what: str) -> str:
    near = near_names(name, known)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not known:
        return f"it holds no {what}"
    shown = ", ".join(known[-5:])
    return f"there are {shown}" if len(known) <= 5 else f"the last of {len(known)} {what} are {shown}"


def _allowed(check: Callable[[str], str], name: str) -> bool:
    try:
        check(name)
    except InvalidName:
        return False
    return True
