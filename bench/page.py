"""Run the benchmarks of this folder and write docs/benchmarks.md: the figures, with machine, versions and date.

With names, such as `transfer.py`, only those are run, and the page keeps what it says of the others. `--quick` runs
fewer rounds and writes nothing, to see that they all work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
LIMIT_S = 3600.0

BENCHMARKS: dict[str, tuple[str, list[str]]] = {
    "overhead.py": ("Submit to done of a no-op, beside an established queue; milliseconds.", ["--jobs", "40"]),
    "swap.py": (
        "Swaps of a torch-free child in each mode, with jobs always queued; a small model and one of 1 GiB.",
        ["--swaps", "20", "--heavy-swaps", "2", "--heavy-mib", "8"],
    ),
    "state.py": (
        "A state of 256 MiB: saved, beyond the box, and back; seconds, milliseconds, ratios.",
        ["--quick"],
    ),
    "dedup.py": ("What a push sends of a changed model, beside Xet's local:// store; bytes.", ["--layers", "2"]),
    "env.py": (
        "From a lock with torch to an environment, beside uv sync; seconds.",
        ["--rounds", "1", "--package", "packaging"],
    ),
    "load.py": (
        "A checkpoint file from the disk to CPU tensors, verified, beside the disk and the processor; ratios, ms, MiB.",
        ["--quick"],
    ),
    "transfer.py": ("Push and pull against one SeaweedFS; ours over theirs in throughput.", ["--quick"]),
    "claims.py": (
        "Claim and finish at the queue's port, on PostgreSQL and SQLite: jobs a second, milliseconds, ratios.",
        ["--quick"],
    ),
    "days.py": ("The launch day and an overload, simulated; within SLO and waits by tier, real seconds.", ["--quick"]),
    "gateway.py": ("One gateway process on PostgreSQL before a fleet of 9,000 workers.", ["--quick"]),
    "help.py": ("Start of the command line; milliseconds.", ["--times", "3"]),
}
"""File -> what it measures, and the options of a quick run."""


def main() -> None:
    """Run them one after the other; standard output gets one JSON object of theirs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; the page is left alone")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help="only these")
    options = parser.parse_args()
    quick: bool = options.quick
    names = options.names or list(BENCHMARKS)
    results = {name: run(name, BENCHMARKS[name][1] if quick else []) for name in names}
    print(json.dumps(results, indent=2))
    if not quick:
        kept = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
        written = {name: section(name, result) for name, result in results.items()}
        PAGE.write_text(page(kept | written), encoding="utf-8")


def run(name: str, options: list[str]) -> dict[str, Any]:
    """Run one benchmark to its end and read what it prints."""
    print(f"bench/{name} ...", file=sys.stderr)
    command = [sys.executable, str(HERE / name), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def page(sections: dict[str, str]) -> str:
    """Put the sections together, in the order of BENCHMARKS."""
    head = [
        "# Benchmarks",
        "",
        "*For whoever wants to know what it costs. `make bench` runs them all and writes this page.*",
        "",
    ]
    return "\n".join(head) + "".join(f"\n## bench/{name}\n{sections[name]}" for name in BENCHMARKS if name in sections)


def sections(page: str) -> dict[str, str]:
    """Read what a page says of each benchmark."""
    parts = page.split("\n## bench/")[1:]
    return {name: text.rstrip("\n") + "\n" for name, _, text in (part.partition("\n") for part in parts)}


def section(name: str, result: dict[str, Any]) -> str:
    """Write one benchmark's figures down as a table."""
    memory_gib = psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.machine()}"
    versions = f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    today = datetime.now(UTC).date()
    lines = ["", BENCHMARKS[name][0], "", f"{machine}; {versions}; {today}.", "", "| figure | value |", "|---|---|"]
    lines += [f"| `{key}` | {value} |" for key, value in rows(result) if key != "notes"]
    lines += ["", *(f"- {note}" for note in result.get("notes", ()))]
    return "\n".join(lines) + "\n"


def rows(figures: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the figures as names and cells; a group of groups has a row for each."""
    for key, value in figures.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            yield from rows(value, f"{above}{key}.")
        elif isinstance(value, dict):
            yield above + key, ", ".join(f"{name} {inner}" for name, inner in value.items())
        else:
            yield above + key, "not compared" if value is None else str(value)


if __name__ == "__main__":
    main()
