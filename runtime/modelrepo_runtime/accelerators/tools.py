"""Run a vendor's command-line tool and read what it prints; a tool that is missing or broken says nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence

# A wedged driver makes its tool hang; the worker must start all the same.
TOOL_TIMEOUT_S = 10.0


def output_of(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return what `command` prints; None where it is absent, fails or takes longer than ten seconds."""
    path = shutil.which(command[0], path=environ.get("PATH"))
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def json_of(command: Sequence[str], environ: Mapping[str, str]) -> object:
    """Return the JSON that `command` prints, past any warning lines before it; None where there is none."""
    text = output_of(command, environ)
    if text is None:
        return None
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        return None
    try:
        return json.loads(text[min(starts) :])
    except ValueError:
        return None


def number(value: object) -> int | None:
    """Read an integer that a tool may print as 12, "12" or "12.0"."""
    try:
        return int(float(str(value)))
    except (ValueError, OverflowError):
        return None
