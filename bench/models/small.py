"""A model that does nothing, in an environment of the packages that a benchmark needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

PYPROJECT = """\
[project]
name = "{name}"
version = "1"
requires-python = ">={minor}"
dependencies = {packages}

[tool.uv]
package = false
environments = ["sys_platform == '{platform}'"]
"""


def write_model(folder: Path, name: str, packages: Sequence[str]) -> Path:
    """Write a model whose environment has these packages, for this platform alone; return its new folder."""
    folder.mkdir()
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    text = PYPROJECT.format(name=name, minor=minor, packages=json.dumps(list(packages)), platform=sys.platform)
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    (folder / "model.yaml").write_text(f"contract: 1\nname: {name}\nentrypoint: model:Model\n", encoding="utf-8")
    (folder / "model.py").write_text("class Model:\n    def run(self, job):\n        pass\n", encoding="utf-8")
    return folder
