"""What models take and make: the specs that their versions carry, read from the repository and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from modelrepo.errors import InvalidActiveFile, VersionDeleted, VersionNotFound

if TYPE_CHECKING:
    from modelrepo.contract.spec import ModelSpec
    from modelrepo.repository import Repository
    from modelrepo.versions.version import Version


class ModelSpecs:
    """The spec of any version, and of the active ones as they were at most `poll_s` ago. May be shared by threads."""

    def __init__(self, repository: Callable[[], Repository], poll_s: float) -> None:
        self._repository, self._poll_s = repository, poll_s
        self._specs: dict[tuple[str, str], ModelSpec] = {}
        self._active: dict[str, tuple[str, float]] = {}

    def at_hand(self, model: str, version: str | None) -> tuple[str, ModelSpec] | None:
        """Return what `find` would, where that asks no repository."""
        if version is None:
            version, at = self._active.get(model, ("", float("-inf")))
            if time.monotonic() - at >= self._poll_s:
                return None
        spec = self._specs.get((model, version))
        return None if spec is None else (version, spec)

    def find(self, model: str, version: str | None) -> tuple[str, ModelSpec]:
        """Return the version that a job would run as now, and its spec.

        Raises: ModelNotFound; VersionNotFound, also where none is active; Unreachable.
        """
        known = self.at_hand(model, version)
        if known is not None:
            return known
        found = self._live(model) if version is None else self._repository().resolve(f"{model}@{version}")
        self._specs[model, found.version] = found.spec
        if version is None:
            self._active[model] = (found.version, time.monotonic())
        return found.version, found.spec

    def _live(self, model: str) -> Version:
        """Return the active version, or the one before a hand edit that no worker can follow: they serve on as well."""
        from modelrepo.promotion.history import ACTIVATING

        repository = self._repository()
        try:
            return repository.resolve(model)
        except (InvalidActiveFile, VersionDeleted, VersionNotFound):
            for entry in reversed(repository.promotions.history(model)):
                if entry.kind in ACTIVATING:
                    with suppress(VersionDeleted, VersionNotFound):
                        return repository.resolve(f"{model}@{entry.version}")
            raise
