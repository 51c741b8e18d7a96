"""Which files of a checkpoint hold its tensors: one file, or a folder's, by its index where it has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

INDEX_SUFFIX = ".safetensors.index.json"

Shard = tuple[Path, Optional[frozenset[str]]]
"""A file, and the tensors that an index says are in it; None: whatever it holds."""


def shards_of(path: Path) -> list[Shard]:
    """List the files to read.

    In a folder, and in each folder below it, an index says which files count and what they hold; without one all do.

    Raises: FileNotFoundError, ValueError, naming the file.
    """
    if not path.is_dir():
        return [(path, None)]
    folders = sorted({file.parent for file in path.rglob("*.safetensors")} | {i.parent for i in _indexes(path, True)})
    found = [shard for folder in folders for shard in _in_folder(folder)]
    if not found:
        raise FileNotFoundError(f"{path} holds no .safetensors file")
    return found


def _in_folder(folder: Path) -> list[Shard]:
    indexes = _indexes(folder, False)
    if len(indexes) > 1:
        names = ", ".join(index.name for index in indexes)
        raise ValueError(f"{folder} has several indexes ({names}): keep one of them with include: or exclude:")
    if not indexes:
        return [(file, None) for file in sorted(folder.glob("*.safetensors"))]
    by_file: dict[str, set[str]] = {}
    for tensor, file in _weight_map(indexes[0]).items():
        by_file.setdefault(file, set()).add(tensor)
    for file, tensors in by_file.items():
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / file} is missing: {indexes[0].name} says that it holds {len(tensors)} tensors, "
                f"{min(tensors)!r} for one"
            )
    return [(folder / file, frozenset(tensors)) for file, tensors in sorted(by_file.items())]


def _indexes(folder: Path, below: bool) -> list[Path]:
    pattern = f"*{INDEX_SUFFIX}"
    return sorted(folder.rglob(pattern) if below else folder.glob(pattern))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        tree: Any = json.loads(index.read_bytes())
        found: dict[str, str] = dict(tree["weight_map"])
        good = all(isinstance(file, str) and Path(file).name == file not in ("", ".", "..") for file in found.values())
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise ValueError(f"{index} is no index of shards: its weight_map must name a file beside it for each tensor")
    return found
