"""A repository of immutable model versions in any bucket, and their environments.

>>> from modelrepo import Repository
>>> repository = Repository.open("s3://bucket/models")
>>> repository.promotions.promote("video-gen", "v42")

Names are imported when they are first used: `import modelrepo` itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelrepo.box_cache.version_cache import VersionCache
    from modelrepo.contract import ModelSpec, load_spec
    from modelrepo.copying.repository_copy import CopyOptions, CopyReport
    from modelrepo.environments import EnvironmentCache, IndexSettings
    from modelrepo.errors import ModelRepoError
    from modelrepo.names import Reference, parse_reference
    from modelrepo.promotion import ActiveState, HistoryEntry, Promotions
    from modelrepo.pushing.account import PushPlan
    from modelrepo.pushing.push import CheckRequest, PushOptions, PushResult
    from modelrepo.pushing.vendor import VendorOptions, VendorResult
    from modelrepo.repository import Repository
    from modelrepo.stores.opening import open_store
    from modelrepo.versions.diff import VersionDiff
    from modelrepo.versions.manifest import Manifest
    from modelrepo.versions.version import LocalVersion, Version, VersionSummary

_HOMES = {
    "ActiveState": "modelrepo.promotion",
    "CheckRequest": "modelrepo.pushing.push",
    "CopyOptions": "modelrepo.copying.repository_copy",
    "CopyReport": "modelrepo.copying.repository_copy",
    "EnvironmentCache": "modelrepo.environments",
    "HistoryEntry": "modelrepo.promotion",
    "IndexSettings": "modelrepo.environments",
    "LocalVersion": "modelrepo.versions.version",
    "Manifest": "modelrepo.versions.manifest",
    "ModelRepoError": "modelrepo.errors",
    "ModelSpec": "modelrepo.contract",
    "Promotions": "modelrepo.promotion",
    "PushOptions": "modelrepo.pushing.push",
    "PushPlan": "modelrepo.pushing.account",
    "PushResult": "modelrepo.pushing.push",
    "Reference": "modelrepo.names",
    "Repository": "modelrepo.repository",
    "VendorOptions": "modelrepo.pushing.vendor",
    "VendorResult": "modelrepo.pushing.vendor",
    "Version": "modelrepo.versions.version",
    "VersionCache": "modelrepo.box_cache.version_cache",
    "VersionDiff": "modelrepo.versions.diff",
    "VersionSummary": "modelrepo.versions.version",
    "load_spec": "modelrepo.contract",
    "open_store": "modelrepo.stores.opening",
    "parse_reference": "modelrepo.names",
}

__all__ = [
    "ActiveState",
    "CheckRequest",
    "CopyOptions",
    "CopyReport",
    "EnvironmentCache",
    "HistoryEntry",
    "IndexSettings",
    "LocalVersion",
    "Manifest",
    "ModelRepoError",
    "ModelSpec",
    "Promotions",
    "PushOptions",
    "PushPlan",
    "PushResult",
    "Reference",
    "Repository",
    "VendorOptions",
    "VendorResult",
    "Version",
    "VersionCache",
    "VersionDiff",
    "VersionSummary",
    "load_spec",
    "open_store",
    "parse_reference",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelrepo' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
