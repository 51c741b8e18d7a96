"""The harness runs on every Python from 3.9 on that this machine has."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import modelrepo_runtime.child
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision.spec import StateRequest
from modelrepo_runtime.testing.children import a_request, a_spec, started

HARNESS = Path(modelrepo_runtime.child.__file__).parent
VERSIONS = range(9, 15)
EVERYTHING = """
def load(self, ctx):
    print("loading", ctx)
    self.ctx = ctx
def warmup(self, ctx): pass
def run(self, job):
    import multiprocessing
    job.progress(0.5, "half")
    job.check()
    job.save_state({"a": 1})
    job.output("o.txt").write_text("out")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        yield pool.map(abs, [-1])
    yield job.state
    if job.inputs["fail"]:
        raise ValueError("asked to")
    import sys
    return list(sys.version_info[:2])
"""


def interpreters() -> dict[str, Path]:
    """One interpreter for each minor version: this one, those on PATH, those that pyenv has built."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    candidates = [Path(sys.executable)]
    candidates += [Path(named) for minor in VERSIONS if (named := shutil.which(f"python3.{minor}"))]
    candidates += [path for root in roots if root.is_dir() for path in sorted(root.glob("3.*/bin/python3"))]
    found: dict[str, Path] = {}
    for path in candidates:
        asked = subprocess.run(
            [path, "-I", "-c", "import sys; print('3.%d' % sys.version_info[1])"],
            capture_output=True,
            text=True,
            check=False,
        )
        version = asked.stdout.strip()
        if asked.returncode == 0 and int(version[2:]) in VERSIONS:
            found.setdefault(version, path)
    return found


def _minor(version: str) -> int:
    return int(version.removeprefix("3."))


FOUND = interpreters()
VERSIONS_FOUND = sorted(FOUND, key=_minor)


@pytest.mark.parametrize("version", VERSIONS_FOUND)
def test_a_child_lives_its_whole_life(version: str, tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, EVERYTHING, python=FOUND[version]))
    try:
        partials: list[object] = []
        outcome = child.run(a_request(tmp_path, {"fail": False}), timeout_s=60, on_partial=partials.append)
        assert outcome.cause is Cause.SUCCEEDED, outcome
        assert outcome.result == [3, int(version[2:])] and partials == [[1], None]
        assert [file.name for file in outcome.outputs] == ["o.txt"]
        assert child.run(a_request(tmp_path, {"fail": True}), timeout_s=60).cause is Cause.EXCEPTION
    finally:
        report = child.stop()
    assert report.step == "drained"
    assert "Warning" not in child.log_path.read_text()


def test_only_the_standard_library_is_imported() -> None:
    imported = set()
    for file in HARNESS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch"}


def test_the_linter_holds_it_to_the_oldest_python() -> None:
    settings = tomllib.loads((HARNESS / "ruff.toml").read_text(encoding="utf-8"))
    assert settings["target-version"] == "py39"
    assert all(re.search(r"^from __future__ import annotations$", file.read_text(), re.M) for file in modules())


def modules() -> list[Path]:
    return [file for file in HARNESS.glob("*.py") if file.name != "__init__.py"]


def test_a_models_modules_may_be_named_like_the_standard_librarys_that_are_read_late(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            job.save_state({"a": 1})
            return [job.state, job.attempt]
    """
    spec = a_spec(tmp_path, code)
    for name in ("pickle", "code", "pdb", "mmap", "struct"):
        (spec.code_roots[0] / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    child = started(spec)
    state = StateRequest(tmp_path / "memory", tmp_path / "disk")
    child.run(a_request(tmp_path, state=state), timeout_s=10)
    found = replace(state, first=2, found=tmp_path / "memory" / "1.state")
    outcome = child.run(a_request(tmp_path, state=found, attempt=2), timeout_s=10)
    child.stop()
    assert outcome.result == [{"a": 1}, 2], outcome


def test_a_models_modules_may_have_any_name(tmp_path: Path) -> None:
    """Even those of the harness, or of this package."""
    names = [file.stem for file in modules() if file.stem != "__main__"] + ["modelrepo", "queue_", "jobs"]
    spec = a_spec(
        tmp_path, "import " + ", ".join(names) + "\ndef run(self, job): return self.names\n" + f"names = {names}"
    )
    for name in names:
        (spec.code_roots[0] / f"{name}.py").write_text("")
    child = started(spec)
    outcome = child.run(a_request(tmp_path), timeout_s=10)
    child.stop()
    assert outcome.result == names
