"""The key of everything that a repository holds; keys are relative to the repository's root."""

from __future__ import annotations

import re
from typing import Final

REPOSITORY: Final = "repository.json"
STORE: Final = "store.json"
MODELS: Final = "models/"
OBJECTS: Final = "objects/sha256/"
ENVIRONMENTS: Final = "environments/"
ADAPTERS: Final = "adapters/"
PUSHES: Final = "pushes/"
PRUNES: Final = "prunes/"
PROBES: Final = "probes/"
"""Where `init` tries the store; what it writes there, it deletes."""

COPIES_FOR_PEOPLE: Final = ("model.yaml", "pyproject.toml", "uv.lock")

_HISTORY = re.compile(r"models/([^/]+)/history/([0-9]{8,12})\.yaml")
_OF_MODEL = re.compile(r"models/([^/]+)/(?:active\.yaml|history/[^/]+|versions/[^/]+/[^/]+)")
_ADAPTER = re.compile(r"adapters/([^/]+)/versions/([^/]+)\.json")
_MANIFEST = re.compile(r"models/([^/]+)/versions/([^/]+)/manifest\.json")


def model_folder(model: str) -> str:
    return f"{MODELS}{model}/"


def model_of(key: str) -> str | None:
    """Return the model whose active file, history or version a key is part of, None for any other key."""
    match = _OF_MODEL.fullmatch(key)
    return match[1] if match else None


def active_file(model: str) -> str:
    return f"{MODELS}{model}/active.yaml"


def history_folder(model: str) -> str:
    return f"{MODELS}{model}/history/"


def history_entry(model: str, generation: int) -> str:
    return f"{MODELS}{model}/history/{generation:08d}.yaml"


def generation_of(key: str) -> int | None:
    """Return the generation that a key under `history/` is of, None for anything else kept there."""
    match = _HISTORY.fullmatch(key)
    return int(match[2]) if match and key == history_entry(match[1], int(match[2])) else None


def lost_save(model: str, sha256: str) -> str:
    """Return where an editor's save is kept that a change overwrote."""
    return f"{MODELS}{model}/history/.lost-{sha256}"


def versions_folder(model: str) -> str:
    return f"{MODELS}{model}/versions/"


def manifest(model: str, version: str) -> str:
    return f"{MODELS}{model}/versions/{version}/manifest.json"


def version_of(key: str) -> tuple[str, str] | None:
    """Return model and version of a manifest's key, None for any other key."""
    match = _MANIFEST.fullmatch(key)
    return (match[1], match[2]) if match else None


def copy_for_people(model: str, version: str, name: str) -> str:
    return f"{MODELS}{model}/versions/{version}/{name}"


def tombstone(model: str, version: str) -> str:
    return f"{MODELS}{model}/versions/{version}/deleted.json"


def object_(sha256: str) -> str:
    return f"{OBJECTS}{sha256[:2]}/{sha256}"


def digest_of(key: str) -> str | None:
    """Return the sha256 that an object's key is of, None for any other key."""
    digest = key.removeprefix(OBJECTS)[3:]
    return digest if key == object_(digest) and re.fullmatch(r"[0-9a-f]{64}", digest) else None


def bundles_folder(environment_digest: str, extra: str | None = None) -> str:
    """Return where the bundles of an environment lie; an extra is spelt `_` where there is none."""
    return f"{ENVIRONMENTS}{environment_digest}/{extra or '_'}/"


def environment_of(key: str) -> str:
    """Return the digest of the environment that a bundle's key is of."""
    return key.removeprefix(ENVIRONMENTS).partition("/")[0]


def bundle(environment_digest: str, extra: str | None, python_tag: str, platform: str, sha256: str) -> str:
    """Return the key of one bundle of wheels, such as `environments/<digest>/_/cp311-linux_x86_64/<sha256>.json`."""
    return f"{bundles_folder(environment_digest, extra)}{python_tag}-{platform}/{sha256}.json"


def adapter_versions(name: str) -> str:
    return f"{ADAPTERS}{name}/versions/"


def adapter(name: str, version: str) -> str:
    """Return the key of what says which bytes a version of an adapter has."""
    return f"{adapter_versions(name)}{version}.json"


def adapter_of(key: str) -> tuple[str, str] | None:
    """Return name and version of a published adapter's document, None for any other key."""
    match = _ADAPTER.fullmatch(key)
    return (match[1], match[2]) if match else None


def adapter_pieces(name: str, sha256: str) -> str:
    return f"{ADAPTERS}{name}/sha256/{sha256}/"


def adapter_piece(name: str, sha256: str, number: int) -> str:
    """Return the key of a piece of an adapter's bytes; they are numbered from 0."""
    return f"{adapter_pieces(name, sha256)}{number:05d}"


def push_lease(push_id: str, renewal: int = 0) -> str:
    """Return the key of a push's lease; a long push creates `renewal` 1, 2, .. beside it."""
    return f"{PUSHES}{push_id}.{renewal}.json" if renewal else f"{PUSHES}{push_id}.json"


def prune(prune_id: str) -> str:
    return f"{PRUNES}{prune_id}.json"


def prune_decision(prune_id: str) -> str:
    return f"{PRUNES}{prune_id}.decision"


def prune_done(prune_id: str) -> str:
    return f"{PRUNES}{prune_id}.done"


def probe(probe_id: str, round_number: int) -> str:
    return f"{PROBES}{probe_id}/{round_number}"
