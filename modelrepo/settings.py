"""`modelrepo.toml`, and which repository a command means."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import InvalidInput
from modelrepo.names import near_names

FILE_NAME = "modelrepo.toml"
KEYS = ("repo", "queue", "files")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the nearest `modelrepo.toml` says; all None where there is no such file."""

    repo: str | None = None
    queue: str | None = None
    files: str | None = None
    path: Path | None = None


def find_settings(start: Path) -> Settings:
    """Read the nearest `modelrepo.toml`, in `start` or a folder above it.

    A relative folder in `repo` or `files` is one beside the file.

    Raises:
        InvalidInput: the file is no TOML, or has a key other than repo, queue and files.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        path = folder / FILE_NAME
        if path.is_file():
            return _read(path)
    return Settings()


def repository_url(flag: str | None = None, *, start: Path | None = None) -> str:
    """Return the repository that is meant: `--repo`, else MODELREPO_REPO, else the nearest `modelrepo.toml`.

    Raises:
        InvalidInput: none of them names one.
    """
    url = flag or os.environ.get("MODELREPO_REPO") or find_settings(start or Path.cwd()).repo
    if not url:
        raise InvalidInput(
            "no repository named: pass --repo URL, set MODELREPO_REPO, "
            f'or write repo = "URL" into a {FILE_NAME} here or in a folder above'
        )
    return url


def object_mirrors(flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the URLs that objects are read from first: those of `--object-mirror`, else MODELREPO_OBJECT_MIRROR."""
    told = os.environ.get("MODELREPO_OBJECT_MIRROR", "").split(",")
    return tuple(flags) or tuple(url.strip() for url in told if url.strip())


def _read(path: Path) -> Settings:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not TOML: {error}") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from error
    for key, value in values.items():
        if key not in KEYS:
            near = near_names(key, KEYS)
            meant = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(KEYS)}"
            raise InvalidInput(f"{path}: unknown key {key!r}; {meant}")
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{path}: {key} is {value!r}; it must be a URL or a path, in quotes")
    return Settings(
        repo=_beside(path, values.get("repo")),
        queue=values.get("queue"),
        files=_beside(path, values.get("files")),
        path=path,
    )


def _beside(path: Path, url: str | None) -> str | None:
    if url is None or "://" in url:
        return url
    return str(path.parent / Path(url).expanduser())
