"""Where what lies in the box's version cache, and what its records say.

<cache>/versions/<digest>/READY              written last; lists the checkpoints that are whole
<cache>/versions/<digest>/manifest.json      what every file of it should be, for `verify --local`
<cache>/versions/<digest>/code/              files of their own: code that edits itself hurts one version only
<cache>/versions/<digest>/checkpoints/<name>/   hard links into objects/
<cache>/objects/ab/<content>                 checkpoint files, by content, shared by versions
<cache>/incoming/<digest>/                   a version that is being fetched; wanted.json lists its contents
<cache>/incoming/objects/<content>           a content that is being fetched: after a death the next fetch goes on there
<cache>/holds/<digest>                       flock: shared by who fetches or uses a version, exclusive for its eviction
<cache>/holds/environment-<digest>, supplies    the same of an environment, and of what the next one is built from
<cache>/locks/                               <digest>.lock, contents, eviction: a dead holder's lock is free
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from modelrepo.contract.quantities import parse_size
from modelrepo.errors import InvalidInput
from modelrepo.versions.manifest import FileRecord, Manifest

READY = "READY"
EVICTED = "evicted-"
SIZE_VARIABLE = "MODELREPO_CACHE_SIZE"


def default_cache() -> Path:
    """Return the box's cache folder: MODELREPO_CACHE, else the user's own cache folder."""
    chosen = os.environ.get("MODELREPO_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("modelrepo")


def default_cache_size() -> int | None:
    """Return what MODELREPO_CACHE_SIZE allows, in bytes; None where it is not set. Raises: InvalidInput."""
    told = os.environ.get(SIZE_VARIABLE)
    if not told:
        return None
    try:
        return parse_size(told)
    except ValueError as error:
        raise InvalidInput(f"cannot read {SIZE_VARIABLE}: {error}") from None


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """The paths below one cache folder."""

    root: Path

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def arriving(self) -> Path:
        return self.root / "incoming"

    @property
    def partials(self) -> Path:
        return self.arriving / "objects"

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def holds(self) -> Path:
        return self.root / "holds"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    def version(self, digest: str) -> Path:
        return self.versions / digest

    def ready(self, digest: str) -> Path:
        return self.version(digest) / READY

    def manifest(self, digest: str) -> Path:
        return self.version(digest) / "manifest.json"

    def content(self, key: str) -> Path:
        return self.objects / key[:2] / key

    def partial(self, key: str) -> Path:
        return self.partials / key

    def incoming(self, digest: str) -> Path:
        return self.arriving / digest

    def wanted(self, digest: str) -> Path:
        return self.incoming(digest) / "wanted.json"

    def hold(self, digest: str) -> Path:
        return self.holds / digest

    def version_lock(self, digest: str) -> Path:
        return self.locks / f"{digest}.lock"

    @property
    def contents_lock(self) -> Path:
        return self.locks / "contents"

    @property
    def eviction_lock(self) -> Path:
        return self.locks / "eviction"


@dataclass(frozen=True, slots=True)
class Ready:
    """What READY says; `manifest` is the sha256 of the manifest beside it, `environment` the digest of that."""

    version: str
    checkpoints: frozenset[str]
    environment: str = ""
    manifest: str = ""

    def to_bytes(self) -> bytes:
        record = {
            "format": 1,
            "version": self.version,
            "checkpoints": sorted(self.checkpoints),
            "environment": self.environment,
            "manifest": self.manifest,
        }
        return json.dumps(record).encode()

    @classmethod
    def read(cls, path: Path) -> Ready | None:
        """Return the record; None where there is none that can be read."""
        try:
            record = json.loads(path.read_bytes())
            names = frozenset(record["checkpoints"])
            return cls(record["version"], names, record.get("environment", ""), record.get("manifest", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest that was kept beside a version; None where there is none that can be read."""
    from modelrepo.errors import ModelRepoError

    try:
        return Manifest.from_bytes(path.read_bytes(), name=str(path))
    except (OSError, ModelRepoError):
        return None


def read_sizes(path: Path) -> dict[str, int]:
    """Return sizes by content, as wanted.json lists them; none where it cannot be read."""
    try:
        tree: Any = json.loads(path.read_bytes())
        return {str(key): int(size) for key, size in tree.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_sizes(path: Path, sizes: Mapping[str, int]) -> None:
    """Write what `read_sizes` reads; whole or not at all, and only for as long as the box runs."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(dict(sizes)))
    draft.replace(path)


def content_key(file: FileRecord) -> str:
    """Return the name of a file's bytes in the cache.

    Only what is verified on the way in may name it, and that is the chunks: the digest of a whole file would have to be
    computed once more, or a wrong manifest could give another version's file the wrong bytes.
    """
    if len(file.chunks) == 1:
        return file.chunks[0].sha256
    return hashlib.sha256("".join(f"{chunk.sha256} {chunk.size_bytes}\n" for chunk in file.chunks).encode()).hexdigest()
