"""The `ctx` object that `load`, `warmup` and `reload` get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import tensors
from .frames import Message


class Context:
    """What a model may know about where it runs."""

    def __init__(self, start: Message) -> None:
        self.rank: int = start.get("rank", 0)
        self.local_rank: int = self.rank
        self.world_size: int = start.get("ranks", 1)
        self.stages: tuple[str, ...] = tuple(start["stages"])
        self.device: str = start["device"]
        self.devices: tuple[str, ...] = tuple(start["devices"])
        self.config: dict[str, Any] = start["config"]
        self.secrets: dict[str, str] = start["secrets"]
        self.version: str = start["version"]
        self.scratch = Path(start["scratch"])
        self._checkpoints: dict[str, str] = start["checkpoints"]
        self._pool = {path: tuple(found) for path, found in start.get("pool", {}).items()}

    def checkpoint(self, name: str) -> Path:
        """The local path of a checkpoint: a file or a folder, read-only."""
        try:
            return Path(self._checkpoints[name])
        except KeyError:
            known = ", ".join(sorted(self._checkpoints)) or "none"
            stages = ", ".join(self.stages)
            raise KeyError(f"no checkpoint {name!r} for stages {stages}; there is {known}") from None

    def load_safetensors(
        self,
        name: str,
        device: str | None = None,
        *,
        names: Iterable[str] | None = None,
        slices: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> dict[str, Any]:
        """Load tensors by name, on `device` or `ctx.device`; on the CPU they are private views of shared memory.

        `name` is a checkpoint, or CHECKPOINT/PATH for a file or folder inside one. `names`: only these tensors.
        `slices`: of these tensors only the part that `(dimension, start, stop)` says.
        """
        checkpoint, _, inside = name.partition("/")
        path = self.checkpoint(checkpoint)
        wanted = tensors.Wanted(names, slices)
        return tensors.load(path / inside if inside else path, str(device or self.device), self._pool, wanted)

    def __repr__(self) -> str:
        return f"<ctx of {self.version}: stages {', '.join(self.stages)} on {self.device}>"
