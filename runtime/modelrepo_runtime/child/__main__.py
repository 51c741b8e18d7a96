"""Load the harness under a name of its own, so that no module of a model can collide with its modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "_modelrepo_child"


def _start() -> int:
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    harness = importlib.import_module(PACKAGE + ".harness")
    return int(harness.main(sys.argv))


if __name__ == "__main__":
    sys.exit(_start())
