"""The example models that come with the package, put together as one of their two versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import modelrepo_cli
from modelrepo.errors import NotFound

# A checkout keeps the examples at its top; a wheel carries them inside the package.
_PACKAGE = Path(modelrepo_cli.__file__).resolve().parent
_PLACES = (_PACKAGE / "examples", _PACKAGE.parent.parent / "examples")
EARLIER = "v1"  # the folder of an example that holds the checkpoints of its earlier version
_LEFT = shutil.ignore_patterns("__pycache__", ".venv", "uv.lock", EARLIER)


def example_folder(name: str) -> Path:
    """Return the folder of an example model. Raises: NotFound."""
    for place in _PLACES:
        if (place / name / "model.yaml").is_file():
            return place / name
    looked = " and ".join(str(place) for place in _PLACES)
    raise NotFound(f"cannot find the example {name}: it is neither in {looked}; install modelrepo-toolkit again")


def assemble(name: str, target: Path, *, earlier: bool) -> Path:
    """Copy an example into `target`, with the checkpoints of its `earlier` version where asked."""
    source = example_folder(name)
    shutil.copytree(source, target, ignore=_LEFT)
    if earlier:
        for file in (source / EARLIER).iterdir():
            shutil.copyfile(file, target / "checkpoints" / file.name)
    return target
