"""Relative paths inside a version, which may come from anybody."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modelrepo.errors import Corrupt

LONGEST_PATH_BYTES = 3072  # leaves a kilobyte of PATH_MAX for the folder that it is written below
LONGEST_NAME_BYTES = 255  # NAME_MAX of every file system in use


def path_problem(path: str) -> str | None:
    """Say why `path` may not be written below a folder; None when it may."""
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "holds control characters"
    if "\\" in path:
        return "holds a backslash"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > LONGEST_PATH_BYTES:
        return f"is longer than {LONGEST_PATH_BYTES} bytes"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "leaves its folder" if part == ".." else "holds an empty or '.' component"
        if part.casefold() == ".git":
            return "reaches into a Git folder, whose settings Git would run"
        if len(part.encode()) > LONGEST_NAME_BYTES:
            return f"holds a name longer than {LONGEST_NAME_BYTES} bytes"
    return None


def name_problem(name: str) -> str | None:
    """Say why `name` may not be the name of one folder; None when it may."""
    return "holds a slash" if "/" in name else path_problem(name)


def inside(folder: Path, path: str) -> Path:
    """Return where `path` lies below `folder`.

    Raises:
        Corrupt: it would lie elsewhere. Manifests are checked when they are read; this is the second lock on the door.
    """
    problem = path_problem(path)
    if problem is not None:
        raise Corrupt(f"cannot write {path!r} below {folder}: the path {problem}", path=path)
    return folder / path


def collision(paths: Iterable[str]) -> str | None:
    """Name a path that is listed twice or is at once a file and a folder; None when there is none."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
        parts = path.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    return next(iter(sorted(seen & folders)), None)
