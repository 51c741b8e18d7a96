"""Which files of a folder a checkpoint's `include` and `exclude` take."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from modelrepo.contract.spec import CheckpointSource


def chosen(source: CheckpointSource, path: str) -> bool:
    """Say whether include and exclude take a file; `*` crosses folders, as it does on the Hugging Face Hub."""

    def any_match(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)

    return (not source.include or any_match(source.include)) and not any_match(source.exclude)
