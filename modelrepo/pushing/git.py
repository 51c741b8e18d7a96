"""Which Git commit a model's folder is at."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

GIT_TIMEOUT_S = 30.0  # `git status` reads every tracked file of the folder


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit, and whether the folder has changes that it lacks; no commit outside of a checkout."""

    commit: str | None = None
    dirty: bool = False


def git_state(folder: Path) -> GitState:
    """Ask Git; a folder that it knows nothing of, or a box without Git, has no commit."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return GitState()
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return GitState(commit.strip(), dirty=bool(changes is None or changes.strip()))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
