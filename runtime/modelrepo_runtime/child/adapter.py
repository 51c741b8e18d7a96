"""What `job.adapters` holds."""

from __future__ import annotations

from pathlib import Path


class Adapter:
    """A file of weights that came with a job, such as a LoRA: whole, verified, and to be read only."""

    __slots__ = ("name", "path", "sha256", "weight")

    def __init__(self, name: str, path: str, sha256: str, weight: float) -> None:
        self.name = name
        self.path = Path(path)
        self.sha256 = sha256
        self.weight = weight

    def __repr__(self) -> str:
        return f"Adapter({self.name!r}, weight={self.weight}, sha256={self.sha256[:12]}..)"
