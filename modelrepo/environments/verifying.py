"""Is what is installed still what was installed? Every file is held against the RECORD of its distribution."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelrepo.errors import Stopped

_READ_BYTES = 1 << 20
# What uv and we put beside the distributions.
_OURS = frozenset({"_virtualenv.py", "_virtualenv.pth"})


@dataclass(frozen=True, slots=True)
class EnvironmentProblem:
    """A file of an environment that is not as it was installed; `path` is relative to the environment."""

    path: str
    what: Literal["changed", "missing", "not installed by any distribution"]
    distribution: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" + (f" ({self.distribution})" if self.distribution else "")


def environments_in(folder: Path) -> Iterator[Path]:
    """Yield every whole environment below a cache's `environments` folder."""
    yield from (ready.parent for ready in sorted(folder.glob("*/*/*/READY")))


def verify_environment(venv: Path, *, stop: Callable[[], bool] | None = None) -> tuple[EnvironmentProblem, ...]:
    """Return what is wrong with an environment; compiled bytecode, which names the source it is for, is left out.

    Links share their bytes: what is wrong here may be wrong in other environments, and in uv's cache. Raises: Stopped.
    """
    problems: list[EnvironmentProblem] = []
    for site in sorted(venv.glob("lib/python3*/site-packages")):
        recorded: set[Path] = set()
        for information in sorted(site.glob("*.dist-info")):
            name = information.name.removesuffix(".dist-info").replace("-", " ")
            for path, digest in _recorded(information, site):
                if stop is not None and stop():
                    raise Stopped(f"stopped on request while {venv} was verified")
                recorded.add(path)
                what = _problem(path, digest)
                if what is not None:
                    problems.append(EnvironmentProblem(os.path.relpath(path, venv), what, name))
        problems += [
            EnvironmentProblem(os.path.relpath(path, venv), "not installed by any distribution")
            for path in _files(site)
            if path not in recorded
        ]
    return tuple(problems)


def _recorded(information: Path, site: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a distribution with their digests, which are empty where it has none for them."""
    record = information / "RECORD"
    yield record, ""
    try:
        rows = list(csv.reader(record.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return  # it is missing, or its files count as nobody's
    for row in rows:
        if row and row[0]:
            yield Path(os.path.normpath(site / row[0])), row[1] if len(row) > 1 else ""


def _problem(path: Path, digest: str) -> Literal["changed", "missing"] | None:
    if not path.is_file():
        return None if path.suffix == ".pyc" else "missing"
    kind, _, wanted = digest.partition("=")
    if not wanted or kind not in hashlib.algorithms_guaranteed:
        return None
    found = hashlib.new(kind)
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            found.update(block)
    return None if base64.urlsafe_b64encode(found.digest()).rstrip(b"=").decode() == wanted else "changed"


def _files(site: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(site):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if not (name in _OURS and Path(folder) == site):
                yield Path(folder) / name
