"""What an environment with torch costs a box, beside plain `uv sync` of the same lock; seconds, by turns in each round.

attach: everything is in the box's cache, the environment is not. first build: the cache is empty, and the wheels come
from where the lock was made. offline restore: the cache is empty, no index answers, and the wheels come from the bundle
that `push --vendor` left in the repository. uv sync: with uv's cache as the attach has it; cold: with an empty one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.models.small import write_model
from modelrepo.contract import load_spec
from modelrepo.environments import EnvironmentCache, IndexSettings, PreparedEnvironment, named_interpreter, prepare
from modelrepo.environments.uv_tool import Uv
from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo.versions.version import Version

BUDGET_S = 0.5  # for the attach
PACKAGES = ["torch==2.13.0", "numpy"]
NOWHERE = IndexSettings(no_index=True)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="for likeness with the others; JSON is all there is")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--package", action="append", default=[], help="in place of torch and numpy; repeat it")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-", dir=options.folder) as folder:
        print(json.dumps(measure(Path(folder), options.package or PACKAGES, options.rounds), indent=2))


def measure(folder: Path, packages: list[str], rounds: int) -> dict[str, Any]:
    """Lock and publish once, then take every way to an environment in each round; return medians."""
    index = IndexSettings.from_environment()
    model = write_model(folder / "model", "env", packages)
    prepared = prepare(model, load_spec(model), work=folder / "work", index=index, cache=folder / "pusher", environ={})
    repository = Repository.init(str(folder / "repository"))
    pushed = repository.push(model, PushOptions(check="none", vendor=True, index=index, cache=folder / "pusher"))
    version = repository.resolve(f"env@{pushed.version}")
    series: dict[str, list[float]] = {}
    files = 0
    for _ in range(rounds):
        for name, seconds in one_round(folder / "boxes", model, prepared, repository, version, index).items():
            series.setdefault(name, []).append(seconds)
        venv = next((folder / "boxes" / "indexed" / "environments").glob("*/*/*/READY")).parent
        files = sum(1 for path in venv.rglob("*") if path.is_file())
        shutil.rmtree(folder / "boxes")
    figures = {name: round(median(values), 3) for name, values in series.items()}
    return {
        **figures,
        "attach_budget_s": BUDGET_S,
        "packages": len(prepared.record.pins()),
        "files": files,
        "rounds": rounds,
        "notes": [
            f"environment of {', '.join(packages)}; medians of {rounds} rounds",
            "attach, first_build and offline_restore include compiled bytecode, most of torch's first build and then"
            " shared by links; uv sync leaves it to the first import",
        ],
    }


def one_round(
    boxes: Path,
    model: Path,
    prepared: PreparedEnvironment,
    repository: Repository,
    version: Version,
    index: IndexSettings,
) -> dict[str, float]:
    """Build the environment by each way once, on boxes that have nothing yet."""
    record = prepared.record
    indexed, offline = EnvironmentCache(boxes / "indexed", index=index), EnvironmentCache(boxes / "off", index=NOWHERE)

    def built() -> None:
        indexed.ensure(record, extra=None, wheels=prepared.wheels())

    def restored() -> None:
        offline.ensure(record, extra=None, wheels=repository.wheels(version))

    def synced() -> None:
        python = named_interpreter(Path(sys.executable)).resolve()
        uv = Uv(index, cache=boxes / "uv")
        done = uv.run(["sync", "--frozen", "--python", python, *index.arguments()], cwd=model)
        if done.returncode != 0:
            raise SystemExit(done.stderr)

    seconds = {"first_build_s": elapsed(built), "uv_sync_cold_s": elapsed(synced)}
    shutil.rmtree(indexed.folder)
    shutil.rmtree(model / ".venv")
    seconds["attach_s"] = elapsed(built)
    seconds["uv_sync_s"] = elapsed(synced)
    shutil.rmtree(model / ".venv")
    seconds["offline_restore_s"] = elapsed(restored)
    return seconds


def elapsed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
