"""Wheels on this box, by content: verified as they enter, at one path and with one time for uv's cache to know.

<cache>/wheels/<sha256>/<filename>
<cache>/wheels/.incoming-<environment>/     what is being brought; one that was interrupted is gone on with
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelrepo.environments.carried import file_sha256
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import OfferedWheel, WheelSource
from modelrepo.errors import Corrupt, EnvironmentFailed


@dataclass(frozen=True, slots=True)
class WheelStore:
    """`source` is asked only for what the store lacks. Nobody else may use `incoming` at the same time."""

    folder: Path
    source: WheelSource | None = None
    incoming: str = ".incoming"

    def offered(self, extra: str | None, interpreter: Interpreter) -> Sequence[OfferedWheel]:
        return () if self.source is None else self.source.offered(extra, interpreter)

    def gather(self, wheels: Iterable[OfferedWheel]) -> Mapping[OfferedWheel, Path]:
        """Return the verified file of each wheel. Raises: Corrupt, EnvironmentFailed."""
        paths = {wheel: self._path(wheel) for wheel in wheels}
        lacking = [wheel for wheel, path in paths.items() if not _is_there(path, wheel)]
        if lacking:
            incoming = self.folder / self.incoming
            incoming.mkdir(parents=True, exist_ok=True)
            if self.source is not None:
                self.source.bring(lacking, incoming)
            for wheel in lacking:
                _enter(incoming / wheel.filename, wheel, paths[wheel])
            shutil.rmtree(incoming, ignore_errors=True)
        return paths

    def remove_rotten(self, wheels: Iterable[OfferedWheel]) -> None:
        """Look at wheels again after an install failed. Raises: Corrupt for one that changed on this box."""
        for wheel in wheels:
            kept = self._path(wheel)
            if kept.is_file() and file_sha256(kept) != wheel.sha256:
                kept.unlink()
                raise Corrupt(
                    f"the wheel {kept} rotted on this box and was removed; it is fetched again at the next try",
                    path=str(kept),
                    digest=wheel.sha256,
                )

    def _path(self, wheel: OfferedWheel) -> Path:
        return self.folder / wheel.sha256 / wheel.filename


def _is_there(path: Path, wheel: OfferedWheel) -> bool:
    return path.is_file() and path.stat().st_size == wheel.size_bytes


def _enter(brought: Path, wheel: OfferedWheel, kept: Path) -> None:
    if not brought.is_file():
        raise EnvironmentFailed(f"the wheel {wheel.filename} was not brought along; push the version again")
    brought.chmod(0o444)
    found = file_sha256(brought)
    if found != wheel.sha256:
        brought.unlink()
        raise Corrupt(
            f"the wheel {wheel.filename} is not what is written down: sha256:{wheel.sha256} was wanted, "
            f"sha256:{found} found; put the right one there, so that it can be fetched again",
            path=wheel.filename,
            digest=wheel.sha256,
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    brought.replace(kept)
