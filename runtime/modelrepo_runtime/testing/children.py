"""Factories for tests with real child processes: a small model in a folder, a child of it, a request."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelrepo_runtime.supervision import Child, ChildSpec, JobRequest, MemoryGroups, RankGroup, shared_spawner

_numbers = itertools.count(1)


def a_spec(folder: Path, code: str, **changes: Any) -> ChildSpec:
    """A version with one class `Model` whose body is `code`; `load` is added where there is none."""
    number = next(_numbers)
    root = folder / f"code-{number}"
    root.mkdir()
    text = textwrap.dedent(code)
    if "def load" not in text:
        text += "\ndef load(self, ctx): self.ctx = ctx\n"
    (root / "model.py").write_text("class Model:\n" + textwrap.indent(text, "    "))
    spec = ChildSpec(
        python=Path(sys.executable),
        code_roots=(root,),
        entrypoint="model:Model",
        model="demo",
        version="v1",
        stages=("run",),
        folder=folder / f"child-{number}",
    )
    return replace(spec, **changes)


def started(spec: ChildSpec, *, memory: MemoryGroups | None = None) -> Child:
    """A child that is ready."""
    child = Child.start(spec, shared_spawner(), memory=memory)
    child.load(30)
    return child


def started_group(spec: ChildSpec, *, memory: MemoryGroups | None = None) -> RankGroup:
    """A group of ranks that is ready."""
    group = RankGroup.start(spec, shared_spawner(), memory=memory)
    group.load(30)
    return group


def a_request(folder: Path, inputs: Mapping[str, Any] | None = None, **changes: Any) -> JobRequest:
    """One attempt with folders of its own."""
    number = next(_numbers)
    request = JobRequest(
        job_id=f"j{number}",
        attempt=1,
        stage="run",
        inputs=inputs or {},
        handover_dir=folder / f"job-{number}" / "handover",
        output_dir=folder / f"job-{number}" / "outputs",
        log_path=folder / f"job-{number}" / "log.txt",
    )
    return replace(request, **changes)
