"""Run every benchmark of this folder and write docs/benchmarks.md: the figures, with machine, versions and date.

`--quick` runs fewer rounds and writes nothing, to see that they all work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
LIMIT_S = 3600.0

BENCHMARKS: dict[str, tuple[str, list[str]]] = {
    "overhead.py": ("Submit to done of a no-op, beside an established queue; milliseconds.", ["--jobs", "40"]),
    "swap.py": ("Swaps of a torch-free child, with jobs always queued.", ["--swaps", "20"]),
    "dedup.py": ("What a push sends of a changed model, beside Xet's local:// store; bytes.", ["--layers", "2"]),
    "env.py": (
        "From a lock with torch to an environment, beside uv sync; seconds.",
        ["--rounds", "1", "--package", "packaging"],
    ),
    "transfer.py": ("Push and pull against one SeaweedFS; ours over theirs in throughput.", ["--quick"]),
    "help.py": ("Start of the command line; milliseconds.", ["--times", "3"]),
}
"""File -> what it measures, and the options of a quick run."""


def main() -> None:
    """Run them one after the other; standard output gets one JSON object of theirs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; the page is left alone")
    quick: bool = parser.parse_args().quick
    results = {name: run(name, options if quick else []) for name, (_, options) in BENCHMARKS.items()}
    print(json.dumps(results, indent=2))
    if not quick:
        PAGE.write_text(page(results), encoding="utf-8")


def run(name: str, options: list[str]) -> dict[str, Any]:
    """Run one benchmark to its end and read what it prints."""
    print(f"bench/{name} ...", file=sys.stderr)
    command = [sys.executable, str(HERE / name), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def page(results: dict[str, dict[str, Any]]) -> str:
    """Write the figures down as tables."""
    memory_gib = psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.machine()}"
    versions = f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    today = datetime.now(UTC).date()
    lines = [
        "# Benchmarks",
        "",
        "*For whoever wants to know what it costs. `make bench` runs them all and writes this page.*",
        "",
        f"{machine}; {versions}; {today}.",
    ]
    for name, result in results.items():
        lines += ["", f"## bench/{name}", "", BENCHMARKS[name][0], "", "| figure | value |", "|---|---|"]
        lines += [f"| `{key}` | {shown(value)} |" for key, value in result.items() if key != "notes"]
        lines += ["", *(f"- {note}" for note in result.get("notes", ()))]
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """Write one figure as a table's cell."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "not compared" if value is None else str(value)


if __name__ == "__main__":
    main()
