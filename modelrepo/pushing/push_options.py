"""How to push, and what is asked of whoever checks a push."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelrepo.contract.conditions import AcceleratorFacts
from modelrepo.contract.spec import ModelSpec
from modelrepo.environments import IndexSettings

CheckLevel = Literal["import", "resolve", "none"]


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How to push.

    `locked` refuses to make or change a lock; `lock` makes one even where CI is set. `facts` are those of this box's
    accelerators, a CPU by default: they choose the extra in which the check imports the entrypoint. `vendor` keeps the
    environment's wheels for this platform beside the version.
    """

    version: str | None = None
    message: str | None = None
    author: str | None = None
    locked: bool = False
    lock: bool = False
    if_changed: bool = False
    vendor: bool = False
    check: CheckLevel = "import"
    python: Path | None = None
    index: IndexSettings | None = None
    facts: AcceleratorFacts | None = None
    cache: Path | None = None
    reuse_checkpoints: str | None = None
    rehash: bool = False

    def index_settings(self) -> IndexSettings:
        return self.index or IndexSettings.from_environment()


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is to be checked before it is published: the packed code, and the interpreter of its environment."""

    folder: Path
    spec: ModelSpec
    python: Path


PushCheck = Callable[[CheckRequest], None]
"""Raises EntrypointFailed where the model cannot be imported."""
