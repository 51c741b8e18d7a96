"""Models' folders and published versions, made in a moment, for tests of all that handles them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from modelrepo.contract import load_spec, spec_from_json
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.publication.publish import Publication, Published
from modelrepo.pushing.drafting import draft, look, pack
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.version import Version

ENVIRONMENT = EnvironmentRecord(python="3.11", requires_python=">=3.11", digest="e" * 64, pyproject_sha256="f" * 64)

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]


@pytest.fixture
def environment() -> EnvironmentRecord:
    return ENVIRONMENT


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("versions", MemoryBucket())


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Make a model's folder: `spec` is more of model.yaml, `files` are further files by path."""

    def make(
        name: str = "tiny", *, spec: str = "", files: Mapping[str, bytes | str] | None = None, at: str = "model"
    ) -> Path:
        folder = tmp_path / at
        everything: dict[str, bytes | str] = {
            "model.yaml": f"contract: 1\nname: {name}\nentrypoint: model:Model\n{spec}",
            "model.py": "class Model: pass\n",
            **(files or {}),
        }
        for path, data in everything.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder

    return make


@pytest.fixture
def make_draft() -> MakeDraft:
    """Pack a folder into what `publish` takes."""

    def make(folder: Path, *, lookup: Callable[[str], Manifest] | None = None) -> Publication:
        def nowhere(reference: str) -> Manifest:
            raise AssertionError(f"nobody should look for {reference}")

        packed = pack(look(folder, load_spec(folder), lookup or nowhere))
        return draft(folder, packed, ENVIRONMENT, at="2026-01-01T00:00:00Z", author="tester")

    return make


@pytest.fixture
def version_of() -> Callable[[Published], Version]:
    def make(published: Published) -> Version:
        manifest = published.manifest
        return Version(manifest.model, manifest.version, published.digest, manifest, spec_from_json(manifest.spec))

    return make
