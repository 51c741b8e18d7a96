"""What `modelrepo --help` costs: wall time beside that of the bare interpreter, by turns in the same run.

The budget is 150 ms. Nearly all of it is imports, so the number of modules is printed too.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from statistics import median
from typing import Any

BUDGET_MS = 150
WARM_UP = 3

BARE = [sys.executable, "-c", "pass"]
HELP = [sys.executable, "-m", "modelrepo_cli", "--help"]
COUNTED = """
import sys
before = len(sys.modules)
from modelrepo_cli.main import main
main(["--help"])
print(len(sys.modules) - before, file=sys.stderr)
"""


def elapsed_ms(command: list[str]) -> float:
    """Run a command to its end and return the milliseconds that it took."""
    began = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def modules_imported() -> int:
    """Count the modules that the help text needs beyond those of the bare interpreter."""
    command = [sys.executable, "-c", COUNTED]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return int(done.stderr)


def run(times: int) -> dict[str, Any]:
    """Start both `times` times, by turns."""
    for _ in range(WARM_UP):
        elapsed_ms(BARE)
        elapsed_ms(HELP)
    pairs = [(elapsed_ms(BARE), elapsed_ms(HELP)) for _ in range(times)]
    python_ms, help_ms = (median(values) for values in zip(*pairs, strict=True))
    met = "met" if help_ms <= BUDGET_MS else "missed"
    return {
        "help_ms_p50": round(help_ms, 3),
        "python_ms_p50": round(python_ms, 3),
        "ratio": round(median(ours / bare for bare, ours in pairs), 3),
        "modules_imported": modules_imported(),
        "notes": [
            f"median of {times} starts each, by turns, after {WARM_UP}; CPython {platform.python_version()} on "
            f"{platform.machine()}",
            f"the budget of {BUDGET_MS} ms is {met}",
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    options = parser.parse_args()
    found = run(options.times)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
