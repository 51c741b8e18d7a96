"""The smallest folder that can be pushed, and how to push it without an index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelrepo import IndexSettings, PushOptions

OPTIONS = PushOptions(lock=True, check="none", index=IndexSettings(no_index=True))


def write_model(
    folder: Path,
    *,
    checkpoint: str = "w",
    weights: Mapping[str, bytes] | None = None,
    code: str = "class M: pass\n",
    spec: str = "",
) -> Path:
    """Write the model `tiny`, whose checkpoint `w` lies in the folder `checkpoint`; `spec` is more of model.yaml."""
    (folder / checkpoint).mkdir(parents=True)
    (folder / "model.yaml").write_text(
        f"contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {{w: {checkpoint}}}\n{spec}"
    )
    (folder / "model.py").write_text(code)
    (folder / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\nrequires-python = ">=3.11"\n')
    for name, data in (weights or {}).items():
        (folder / checkpoint / name).write_bytes(data)
    return folder
