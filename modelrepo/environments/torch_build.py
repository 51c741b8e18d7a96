"""Which CUDA or ROCm the torch of an environment was built for, read without importing it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from modelrepo.contract.conditions import AcceleratorFacts
from modelrepo.errors import EnvironmentFailed

_FIELD = re.compile(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(?:'([^'\n]*)'|\"([^\"\n]*)\"|None)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """torch/version.py; `cuda` and `hip` are None in a build without them."""

    version: str
    cuda: str | None
    hip: str | None

    def __str__(self) -> str:
        made_for = f"CUDA {self.cuda}" if self.cuda else f"ROCm {self.hip}" if self.hip else "CPU only"
        return f"torch {self.version} ({made_for})"


def torch_build(venv: Path) -> TorchBuild | None:
    """Return the build of the torch in a virtual environment, None where there is none."""
    for path in sorted(venv.glob("lib/python3*/site-packages/torch/version.py")):
        found = {match[1]: match[2] or match[3] for match in _FIELD.finditer(path.read_text("utf-8", "replace"))}
        return TorchBuild(found.get("__version__") or "unknown", found.get("cuda"), found.get("hip"))
    return None


def check_torch_build(venv: Path, facts: AcceleratorFacts, extra: str | None) -> None:
    """Refuse a torch that cannot use the slot's accelerator. Raises: EnvironmentFailed."""
    build = torch_build(venv)
    if build is None or facts.kind in ("cpu", "mps"):
        return
    built_for = build.cuda if facts.kind == "cuda" else build.hip
    if built_for is None:
        raise EnvironmentFailed(
            f"{build} cannot use this box's {facts}; give accelerators: an extra with a build for {facts.kind} "
            f"({'its extra ' + repr(extra) + ' has none' if extra else 'now it names no extra'}), and push again"
        )
    # A driver serves every CUDA of its own major version and older ones; ROCm's user space comes with the wheel.
    offered = facts.version.split(".")[0] if facts.version else None
    if facts.kind == "cuda" and offered and offered.isdigit() and int(built_for.split(".")[0]) > int(offered):
        raise EnvironmentFailed(
            f"{build} is too new for this box's driver, which serves up to {facts}; update the driver"
        )
