"""The launch day and six hours of 1.15x overload, simulated under every policy: real seconds, and how jobs fared.

Runs `modelrepo simulate --json` in a process of its own. The budget is 60 s a policy for 500,000 jobs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BUDGET_S = 60
QUICK_PART = 50
LOAD = 1.15


def simulate(*args: str) -> dict[str, Any]:
    """Return what the command prints."""
    command = [sys.executable, "-m", "modelrepo_cli", "simulate", "--json", *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def smaller(day: str) -> str:
    """Return a day with a part of its jobs, slots and tenants."""
    return re.sub(r"(?<=[ \[])[0-9]{2,}(?=[,\]}])", lambda match: str(max(1, int(match[0]) // QUICK_PART)), day)


def figures(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of each policy of a simulated day, tiers from the strictest to the most patient."""
    found: dict[str, dict[str, Any]] = {}
    for name, policy in document["policies"].items():
        tiers = policy["tiers"].values()
        found[name] = {
            "seconds": round(policy["seconds"], 1),
            "within_slo_percent": "/".join(f"{tier['slo_met'] * 100:.0f}" for tier in tiers),
            "wait_p50_s": "/".join(f"{tier['wait_p50_s']:.0f}" for tier in tiers),
            "longest_h": "/".join(f"{tier['wait_max_s'] / 3600:.1f}" for tier in tiers),
            "most_waiting": policy["most_waiting"],
        }
    return found


def result(launch: dict[str, Any], overload: dict[str, Any]) -> dict[str, Any]:
    """Put both days together."""
    slowest = max(policy["seconds"] for policy in launch["policies"].values())
    met = "met" if slowest <= BUDGET_S else "missed"
    return {
        "launch": figures(launch),
        "overload": figures(overload),
        "notes": [
            f"tiers in the order {', '.join(next(iter(launch['policies'].values()))['tiers'])}",
            f"launch: {launch['jobs']:,} jobs, seed {launch['seed']}; overload: {overload['jobs']:,} jobs in six hours,"
            f" {LOAD} times what 1,000 GPUs can do, seed {overload['seed']}",
            f"the budget of {BUDGET_S} s a policy for the launch day is {met}",
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"a {QUICK_PART}th of the jobs and slots")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    options = parser.parse_args()
    days = [[], ["--overload", str(LOAD)]]
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            documents = []
            for number, day in enumerate(days):
                path = Path(folder) / f"{number}.yaml"
                path.write_text(smaller(simulate("--show-day", *day)["day"]))
                documents.append(simulate(str(path), "--exact-seconds"))
    else:
        documents = [simulate("--exact-seconds", *day) for day in days]
    found = result(*documents)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
