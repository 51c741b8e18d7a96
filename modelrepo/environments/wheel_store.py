"""Carried wheels on this box, by content: verified as they enter, at one path and with one time for uv's cache to know.

<cache>/wheels/<sha256>/<filename>
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelrepo.environments.carried import file_sha256
from modelrepo.environments.record import CarriedWheel
from modelrepo.errors import Corrupt, EnvironmentFailed

Carried = Mapping[str, Path] | Callable[[], Mapping[str, Path]]


@dataclass(slots=True)
class WheelStore:
    """`carried` are files by name, or a callable that brings them here, asked only for what the store lacks."""

    folder: Path
    carried: Carried | None

    def path(self, wheel: CarriedWheel) -> Path:
        """Return the verified file of a wheel. Raises: Corrupt, EnvironmentFailed."""
        kept = self.folder / wheel.sha256 / wheel.filename
        if not kept.is_file() or kept.stat().st_size != wheel.size_bytes:
            self._enter(wheel, kept)
        return kept

    def remove_rotten(self, wheels: Iterable[CarriedWheel]) -> None:
        """Look at wheels again after an install failed. Raises: Corrupt for one that changed on this box."""
        for wheel in wheels:
            kept = self.folder / wheel.sha256 / wheel.filename
            if kept.is_file() and file_sha256(kept) != wheel.sha256:
                kept.unlink()
                raise Corrupt(
                    f"the carried wheel {kept} rotted on this box and was removed; it is fetched again at the next try",
                    path=str(kept),
                    digest=wheel.sha256,
                )

    def _enter(self, wheel: CarriedWheel, kept: Path) -> None:
        source = self._given().get(wheel.filename)
        if source is None or not source.is_file():
            raise EnvironmentFailed(f"the carried wheel {wheel.filename} was not brought along; push the version again")
        kept.parent.mkdir(parents=True, exist_ok=True)
        entering = kept.parent / f".{uuid.uuid4().hex[:8]}"
        try:
            # Never a link: whoever wrote the source may write it again, and this copy is shared.
            shutil.copyfile(source, entering)
            entering.chmod(0o444)
            found = file_sha256(entering)
            if found != wheel.sha256:
                raise Corrupt(
                    f"the carried wheel {source} is not what the manifest names: sha256:{wheel.sha256} was wanted, "
                    f"sha256:{found} found; remove it, so that it is fetched again",
                    path=str(source),
                    digest=wheel.sha256,
                )
            entering.replace(kept)
        finally:
            entering.unlink(missing_ok=True)

    def _given(self) -> Mapping[str, Path]:
        if callable(self.carried):
            self.carried = self.carried()
        return self.carried or {}
