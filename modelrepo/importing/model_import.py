"""Import a model that others have published: a folder in the manner of Hugging Face becomes one that can be pushed."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from modelrepo.contract import load_spec
from modelrepo.errors import InvalidInput
from modelrepo.importing.model_folder import make_folder
from modelrepo.importing.recognising import FOR_PEOPLE, Kind, Recognised, recognise
from modelrepo.importing.sources import FolderSource, HubSource, open_source
from modelrepo.names import check_model_name
from modelrepo.pushing.checkpoints import find_checkpoints
from modelrepo.versions.manifest import Manifest

CHECKPOINT = "weights"
FROM_CONTRACT = ("model.schema.json", "modelrepo_contract.pyi")
GITIGNORE = """\
.venv/
__pycache__/
outputs/
# Packed all the same, because model.yaml names it; Git has no use for it.
checkpoints/
"""
MODELREPOIGNORE = (
    "# For editors only; left out of every version, like whatever .gitignore names.\n" + "\n".join(FROM_CONTRACT) + "\n"
)

_TORCH = "torch>=2.6"
DEPENDENCIES: dict[str, tuple[str, ...]] = {
    "transformers": ("accelerate>=1.0", "safetensors>=0.5", _TORCH, "transformers>=4.56"),
    "diffusers": ("accelerate>=1.0", "diffusers>=0.33", "pillow>=11.0", "safetensors>=0.5", _TORCH),
    "video": ("imageio>=2.37", "imageio-ffmpeg>=0.6", "numpy>=2.0"),
    "tensors": ("numpy>=2.0", _TORCH),
}
"""Loose on purpose: `uv lock` picks the releases, and uv.lock pins them."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A folder that was made. `notes` are what is left to be done; `commit` is that of the Hub."""

    folder: Path
    model: str
    kind: Kind
    what: str
    source: str
    commit: str | None
    files: tuple[str, ...]
    notes: tuple[str, ...]


def import_model(
    source: str, folder: Path, *, name: str | None = None, copy: bool = False, download: bool = False
) -> Imported:
    """Make a model's folder from `source`: a folder, a safetensors file, or `hf://ORG/NAME[@REVISION]`.

    A folder of this box is linked to, or copied with `copy`. Of the Hub the commit is written down, and the weights are
    fetched when the model is pushed, or now with `download`.

    Raises:
        InvalidInput: nothing known is in it, or its files are no weights.
        Conflict: `folder` holds something already.
        NotFound, MissingExtra, Unreachable, Forbidden
    """
    model = check_model_name(name or folder.absolute().name)
    found = open_source(source)
    if isinstance(found, HubSource) and copy:
        raise InvalidInput(f"cannot copy {source}: that is for folders; fetch it now with --download")
    if isinstance(found, FolderSource) and download:
        raise InvalidInput(f"cannot download {source}: it is on this box; copy it with --copy")
    if isinstance(found, FolderSource) and folder.absolute().is_relative_to(found.path):
        raise InvalidInput(f"cannot import {source} into {folder}, which lies inside of it; name another folder")
    recognised = recognise(found)
    texts = _texts(model, found, recognised, here=download or isinstance(found, FolderSource))

    def fill(draft: Path) -> None:
        for path, data in texts.items():
            (draft / path).write_bytes(data)
        if download or isinstance(found, FolderSource):
            (draft / "checkpoints").mkdir()
            _place(found, draft / _checkpoint_path(found), recognised.files, copy=copy)
            find_checkpoints(draft, load_spec(draft), _nowhere)  # a Git-LFS pointer, say, is better found now
        else:
            load_spec(draft)

    make_folder(folder, fill)
    return Imported(
        folder, model, recognised.kind, recognised.what, found.said, found.commit, tuple(texts), recognised.notes
    )


def _place(source: FolderSource | HubSource, target: Path, files: Sequence[str], *, copy: bool) -> None:
    if isinstance(source, FolderSource):
        source.place(target, files, copy=copy)
    else:
        source.download(target, files)


def _checkpoint_path(source: FolderSource | HubSource) -> str:
    if isinstance(source, FolderSource) and source.path.is_file():
        return f"checkpoints/{CHECKPOINT}{source.path.suffix}"
    return f"checkpoints/{CHECKPOINT}"


def _texts(model: str, source: FolderSource | HubSource, found: Recognised, *, here: bool) -> dict[str, bytes]:
    """Return the small files of the folder."""
    templates = resources.files("modelrepo.importing") / "templates"
    values = {
        "name": model,
        "what": found.what,
        "source": json.dumps(source.said, ensure_ascii=False)[1:-1],  # on one line, whatever a path holds
        "checkpoint": _written_checkpoint(_checkpoint_path(source) if here else source.said, found.exclude),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "dependencies": "".join(f'  "{each}",\n' for each in _dependencies(found)),
    }

    def made(template: str) -> bytes:
        text = (templates / template).read_text(encoding="utf-8")
        return string.Template(text).substitute(values).encode()

    contract = resources.files("modelrepo.contract")
    people = {path: source.read(path) for path in FOR_PEOPLE if path in source.files()}
    return {
        **people,
        "model.yaml": made("head.yaml.tmpl") + made(f"{found.kind}.yaml.tmpl"),
        "pyproject.toml": made("pyproject.toml.tmpl"),
        "model.py": made(f"{found.kind}.py.tmpl"),
        ".gitignore": GITIGNORE.encode(),
        ".modelrepoignore": MODELREPOIGNORE.encode(),
        **{file: (contract / file).read_bytes() for file in FROM_CONTRACT},
    }


def _written_checkpoint(source: str, exclude: Sequence[str]) -> str:
    # JSON is YAML: whatever a path holds, it is read back as it is.
    written = {"source": source, **({"exclude": list(exclude)} if exclude else {})}
    return json.dumps(written, ensure_ascii=False)


def _dependencies(found: Recognised) -> list[str]:
    groups: list[str] = [name for name in ("transformers", "diffusers") if name in found.libraries]
    if found.kind in ("video", "tensors"):
        groups.append(found.kind)
    return sorted({each for group in groups for each in DEPENDENCIES[group]})


def _nowhere(reference: str) -> Manifest:
    raise InvalidInput(f"an import has no checkpoint of another version, such as {reference}")
