"""Which version a reference means: `video-gen`, `video-gen@v42`, `video-gen@previous`, `video-gen@git:1a2b3c`."""

from __future__ import annotations

from dataclasses import dataclass

from modelrepo import layout
from modelrepo.contract import spec_from_json
from modelrepo.errors import (
    Corrupt,
    InvalidReference,
    InvalidSpec,
    NewerFormat,
    NotFound,
    VersionDeleted,
    VersionNotFound,
)
from modelrepo.names import parse_reference
from modelrepo.promotion import Promotions
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.version import Version


@dataclass(frozen=True, slots=True)
class Resolver:
    """Finds versions in the repository at `url`."""

    url: str
    catalogue: Catalogue
    promotions: Promotions

    def resolve(self, reference: str) -> Version:
        """Find the version that a reference means; raises as `Repository.resolve` does."""
        named = parse_reference(reference)
        if named.version is None or named.version == "active":
            state = self.promotions.state(named.model)
            if state.version is None:
                raise self._nothing_active(named.model, reference)
            return self.version(named.model, state.version, digest=state.digest)
        if named.version == "previous":
            version = self._previous(named.model)
        elif named.commit is not None:
            version = self._by_commit(named.model, named.commit)
        else:
            version = named.version
        return self.version(named.model, version)

    def version(self, model: str, version: str, *, digest: str | None = None) -> Version:
        """Return the version of exactly this id; raises as `Repository.version` does."""
        manifest, actual = self.catalogue.manifest(model, version)
        if digest is not None and digest != actual:
            raise Corrupt(
                f"the manifest of {model}@{version} in {self.url} has sha256:{actual} instead of sha256:{digest}, "
                "which was promoted; restore it from a copy, or promote another version",
                path=layout.manifest(model, version),
                digest=digest,
            )
        if self.catalogue.is_deleted(model, version):
            raise VersionDeleted(f"{model}@{version} was deleted; its id stays taken, its bytes may be gone")
        return Version(model, version, actual, manifest, spec_from_json(manifest.spec))

    def manifest(self, reference: str) -> Manifest:
        """Return the manifest of the version that a reference means."""
        return self.resolve(reference).manifest

    def named(self, reference: str) -> tuple[str, str]:
        """Return model and version of the version that a reference means."""
        version = self.resolve(reference)
        return version.model, version.version

    def meant(self, reference: str) -> tuple[str, str]:
        """Return the version that a reference names, be it that its manifest cannot be read."""
        try:
            return self.named(reference)
        except (Corrupt, NewerFormat, InvalidSpec):
            named = parse_reference(reference)
            version = named.version or "active"
            if version == "active":
                version = self.promotions.state(named.model).version or version
            elif version == "previous" or named.commit is not None:
                raise
            return named.model, version

    def _nothing_active(self, model: str, reference: str) -> NotFound:
        listed = self.catalogue.versions(model)
        if not listed:
            return self.catalogue.unknown(model)
        return VersionNotFound(
            f"{reference} means the active version, and {model} has none; promote one or name one, such as "
            f"{model}@{listed[-1]}"
        )

    def _previous(self, model: str) -> str:
        version = self.promotions.previous(model)
        if version is not None:
            return version
        if not self.catalogue.listed(model):
            raise self.catalogue.unknown(model)
        raise VersionNotFound(f"{model} has no previous version: none that was active before is there and not blocked")

    def _by_commit(self, model: str, commit: str) -> str:
        listed = self.catalogue.versions(model)
        if not listed:
            raise self.catalogue.unknown(model)
        found: dict[str, str] = {}  # commit -> the version published last from it
        for version in listed:
            known = self.catalogue.manifest(model, version)[0].git_commit
            if known is not None and known.startswith(commit):
                found[known] = version
        if not found:
            raise VersionNotFound(f"{model} has no version of commit {commit}; its last is {listed[-1]}")
        if len(found) > 1:
            commits = ", ".join(sorted(found))
            raise InvalidReference(f"{model}@git:{commit} is not unique: it may be {commits}; give more digits")
        return next(iter(found.values()))
