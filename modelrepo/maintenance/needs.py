"""What the versions that are looked at need, and the documents that say so: each read once, and held to its digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import Corrupt, InvalidName, NewerFormat, ObjectNotFound
from modelrepo.maintenance.references import live_manifests
from modelrepo.promotion import HistoryEntry, Promotions
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle, check_carried, parse_bundle
from modelrepo.versions.manifest import Manifest

Fault = Literal["missing", "truncated", "corrupt", "unreadable"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the repository that is not what it should be.

    `used_by`: the versions and paths, or the bundle and wheel, that it belongs to. `digest`: 64 hex digits, of the
    bytes that should be there; None where nobody can say. `repaired`: they are there now.
    """

    key: str
    fault: Fault
    message: str
    used_by: tuple[str, ...] = ()
    digest: str | None = None
    repaired: bool = False


@dataclass(slots=True)
class Needs:
    """Objects with their sizes (32 bytes of digest -> bytes), and what was wrong with the documents that name them."""

    objects: dict[bytes, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    versions: int = 0
    bundles: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at: one version with the bundles of its environment, or everything."""

    store: ObjectStore
    promotions: Promotions
    version: tuple[str, str] | None = None

    def needs(self) -> Needs:
        """Read every manifest and bundle in the scope."""
        needs = Needs()
        environments: dict[str, list[Bundle]] = {}
        manifests: list[tuple[str, Manifest]] = []
        for key, manifest in self._manifests(needs):
            needs.versions += 1
            needs.objects |= {bytes.fromhex(digest): size for digest, size in manifest.objects().items()}
            environments.setdefault(manifest.environment.digest, [])
            if manifest.environment.carried:
                manifests.append((key, manifest))
        for key, bundle in self._bundles(environments, needs):
            needs.bundles += 1
            needs.objects |= {bytes.fromhex(digest): size for digest, size in bundle.objects().items()}
            environments.setdefault(layout.environment_of(key), []).append(bundle)
        for key, manifest in manifests:
            known = {wheel.sha256 for one in environments[manifest.environment.digest] for wheel in one.wheels}
            try:
                check_carried(manifest.environment, known, None, self.store.url)
            except Corrupt as error:
                owner = (f"{manifest.model}@{manifest.version}",)
                needs.problems.append(Problem(key, "missing", str(error), owner, error.digest))
        return needs

    def users(self, wanted: set[str]) -> dict[str, list[str]]:
        """Return what each of few objects belongs to; the documents are read once more."""
        found: dict[str, list[str]] = {digest: [] for digest in wanted}
        environments: dict[str, list[Bundle]] = {}
        for _, manifest in self._manifests(Needs()):
            environments[manifest.environment.digest] = []
            files = [(f"code {file.path}", file) for file in manifest.code]
            for name, record in manifest.checkpoints.items():
                files += [(f"checkpoint {name} {file.path}", file) for file in record.files]
            for what, file in files:
                for chunk in file.chunks:
                    if chunk.sha256 in wanted:
                        found[chunk.sha256].append(f"{manifest.model}@{manifest.version} {what}")
        for key, bundle in self._bundles(environments, Needs()):
            for wheel in bundle.wheels:
                for chunk in wheel.chunks:
                    if chunk.sha256 in wanted:
                        found[chunk.sha256].append(f"{key} {wheel.path}")
        return found

    def _manifests(self, needs: Needs) -> Iterator[tuple[str, Manifest]]:
        known: dict[str, Sequence[HistoryEntry]] = {}
        keys = self._manifest_keys(needs, known)
        for key in keys:
            model, version = _owner(key)
            owner = f"{model}@{version}"
            digest, entry = self._recorded(model, version, known, needs)
            try:
                data = self.store.read(key)
            except ObjectNotFound:
                needs.problems.append(Problem(key, "missing", "is not there", (owner,), digest))
                continue
            if digest is not None and sha256(data) != digest:
                message = f"has sha256:{sha256(data)}, and sha256:{digest} was {entry}"
                needs.problems.append(Problem(key, "corrupt", message, (owner,), digest))
                continue
            try:
                manifest = Manifest.from_bytes(data, name=key)
            except (Corrupt, NewerFormat) as error:
                needs.problems.append(Problem(key, "unreadable", str(error), (owner,), digest))
                continue
            yield key, manifest

    def _manifest_keys(self, needs: Needs, known: dict[str, Sequence[HistoryEntry]]) -> list[str]:
        if self.version is not None:
            return [layout.manifest(*self.version)]
        listed = [stat.key for stat in live_manifests(self.store)]
        models = {layout.model_of(stat.key) for stat in self.store.list(layout.MODELS)}
        for model in sorted(name for name in models if name is not None):
            # What the history names was published, so its manifest must be there, or its tombstone beside it.
            versions = {entry.version for entry in self._history(model, known, needs) if entry.digest is not None}
            for version in sorted(versions):
                key = layout.manifest(model, version)
                if key not in listed and not self._is_there(layout.tombstone(model, version)):
                    listed.append(key)
        return sorted(listed)

    def _bundles(self, environments: dict[str, list[Bundle]], needs: Needs) -> Iterator[tuple[str, Bundle]]:
        if self.version is None:
            folders = [layout.ENVIRONMENTS]
        else:
            folders = [f"{layout.ENVIRONMENTS}{environment}/" for environment in environments]
        for folder in folders:
            for stat in self.store.list(folder):
                if not stat.key.endswith(".json"):
                    continue
                digest = stat.key.rpartition("/")[2].removesuffix(".json")
                try:
                    yield stat.key, parse_bundle(stat.key, self.store.read(stat.key))
                except ObjectNotFound:
                    continue  # swept meanwhile, with the last version of its environment
                except (Corrupt, NewerFormat) as error:
                    needs.problems.append(Problem(stat.key, "unreadable", str(error), (), digest))

    def _recorded(
        self, model: str, version: str, known: dict[str, Sequence[HistoryEntry]], needs: Needs
    ) -> tuple[str | None, str]:
        """Return the digest that the history has of a version, and what it says of it."""
        for entry in reversed(self._history(model, known, needs)):
            if entry.version == version and entry.digest is not None:
                return entry.digest, f"recorded by generation {entry.generation} ({entry.kind})"
        return None, ""

    def _history(self, model: str, known: dict[str, Sequence[HistoryEntry]], needs: Needs) -> Sequence[HistoryEntry]:
        if model not in known:
            try:
                known[model] = self.promotions.history(model)
            except (Corrupt, NewerFormat) as error:
                known[model] = ()
                key = error.path if isinstance(error, Corrupt) else layout.history_folder(model)
                needs.problems.append(Problem(key, "unreadable", str(error), (model,)))
            except InvalidName:
                known[model] = ()  # no model's name, so it has no history
        return known[model]

    def _is_there(self, key: str) -> bool:
        try:
            self.store.stat(key)
        except ObjectNotFound:
            return False
        return True


def _owner(manifest_key: str) -> tuple[str, str]:
    model, _, version = manifest_key.removeprefix(layout.MODELS).removesuffix("/manifest.json").rpartition("/versions/")
    return model, version
