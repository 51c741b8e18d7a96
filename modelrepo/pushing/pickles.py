"""Checkpoints that run code when they are loaded without care."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})


def pickle_notes(files: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Say which checkpoints hold pickles, in words; `files` are the paths in each."""
    found = {
        name: [path for path in paths if PurePath(path).suffix.lower() in SUFFIXES] for name, paths in files.items()
    }
    return tuple(
        f"checkpoint {name} holds {paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}, which may run code "
        "when it is loaded: load it with torch.load(path, weights_only=True), or convert it to .safetensors"
        for name, paths in sorted(found.items())
        if paths
    )
