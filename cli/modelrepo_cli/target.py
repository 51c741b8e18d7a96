"""What `check`, `run` and `shell` are given: a model folder, or a reference to a version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelrepo_cli.verbs import Call

if TYPE_CHECKING:
    from modelrepo.contract import ModelSpec
    from modelrepo.repository import Repository
    from modelrepo_runtime.local_model import Box, LocalModel

SPEC_FILE = "model.yaml"


def is_folder(target: str) -> bool:
    """Say whether a folder is meant: it looks like a path, or is there and holds a model.yaml."""
    if target in (".", "..") or os.sep in target or target.startswith("~"):
        return True
    return (Path(target) / SPEC_FILE).is_file()


def read_spec(call: Call, target: str) -> ModelSpec:
    """Read the spec of a folder or a version, before anything is fetched or built."""
    from modelrepo.contract import load_spec

    if is_folder(target):
        return load_spec(Path(target).expanduser())
    return call.repository().resolve(target).spec


def sources_repository(call: Call, spec: ModelSpec) -> Repository | None:
    """Open the repository where a folder's checkpoints come from one."""
    needed = any(source.kind == "repository" for source in spec.checkpoints.values())
    return call.repository() if needed else None


@contextmanager
def ready(call: Call, target: str, box: Box, stage: str | None = None) -> Iterator[LocalModel]:
    """Hold the model, or one stage of it, against this box; then bring code, checkpoints and environment here."""
    from modelrepo_runtime.local_model import folder_model, version_model

    with ExitStack() as held:
        with call.progress() as progress:
            told = replace(box, progress=progress)
            if is_folder(target):
                repository = sources_repository(call, read_spec(call, target))
                folder = Path(target).expanduser()
                model = held.enter_context(folder_model(folder, told, repository, stage=stage))
            else:
                model = version_model(call.repository(), target, told, stage=stage)
        yield model
