"""One lock, three accelerators, two platforms: each is vendored on each, and restored from bundles alone.

The other platform is this kernel's 32-bit personality: Python, packaging and uv then all say linux_i686.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo import IndexSettings, PushOptions, Repository

from .packages import make_index, make_wheel, served

TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
HERE, THERE = "linux_x86_64", "linux_i686"
EXTRAS = ("cpu", "cu128", "rocm")
PROJECT = """
[project]
name = "hello"
version = "0"
requires-python = ">=3.11"
dependencies = ["kernels"]

[project.optional-dependencies]
cpu = ["torch==1+cpu"]
cu128 = ["torch==1+cu128"]
rocm = ["torch==1+rocm"]

[tool.uv]
conflicts = [[{ extra = "cpu" }, { extra = "cu128" }, { extra = "rocm" }]]

[tool.uv.sources]
torch = [{ index = "cpu", extra = "cpu" }, { index = "cu128", extra = "cu128" }, { index = "rocm", extra = "rocm" }]
"""
SPEC = """
contract: 1
name: hello
entrypoint: model:Hello
accelerators: [{when: "cuda >= 12.8", extra: cu128}, {when: rocm, extra: rocm}, {when: cpu, extra: cpu}]
"""
RESTORE = """
import json, subprocess, sys
from pathlib import Path
from modelrepo import EnvironmentCache, IndexSettings, Repository
repository = Repository.open(sys.argv[1])
cache = EnvironmentCache(Path(sys.argv[2]), index=IndexSettings(no_index=True))
version, found = repository.resolve("hello"), {}
for extra in sys.argv[3:]:
    venv = cache.ensure(version.manifest.environment, extra=extra, wheels=repository.wheels(version))
    code = "import kernels, torch; print(torch.VERSION, kernels.VERSION)"
    found[extra] = subprocess.check_output([venv / "bin" / "python", "-I", "-c", code], text=True).split()
print(json.dumps(found))
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    assert platform.machine() == "x86_64", "this test needs an x86-64 Linux, whose other personality is i686"
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def write_project(box: Path) -> Path:
    """Write a model with a folder index of torch for each extra; rocm's has nothing for the other platform."""
    folder = box / "hello"
    folder.mkdir()
    text = PROJECT
    for extra in EXTRAS:
        for system in (HERE,) if extra == "rocm" else (HERE, THERE):
            files = {"torch.py": f'VERSION = "{extra}/{system}"\n'}
            make_wheel(box / "torch" / extra, "torch", f"1+{extra}", tag=f"{TAG}-{TAG}-{system}", files=files)
        index = {"name": extra, "url": f"{box}/torch/{extra}", "format": "flat"}
        text += "\n[[tool.uv.index]]\nexplicit = true\n"
        text += "".join(f'{key} = "{value}"\n' for key, value in index.items())
    (folder / "pyproject.toml").write_text(text)
    (folder / "model.yaml").write_text(SPEC)
    (folder / "model.py").write_text("class Hello: pass\n")
    return folder


def on(system: str, box: Path, *command: str) -> str:
    """Run our own Python on one of the platforms, with a cache of its own."""
    other = [] if system == HERE else ["setarch", "i686"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environ |= {"MODELREPO_CACHE": str(box / f"cache-{system}"), "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run([*other, sys.executable, *command], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_accelerator_is_restored_on_each_platform_that_vendored_it(box: Path) -> None:
    kernels = [
        make_wheel(
            box / "made", "kernels", tag=f"{TAG}-{TAG}-{system}", files={"kernels.py": f'VERSION = "{system}"\n'}
        )
        for system in (HERE, THERE)
    ]
    repository = Repository.init(str(box / "repository"))
    with served(make_index(box / "index", kernels)) as address:
        index = IndexSettings(default_index=address)
        options = PushOptions(lock=True, check="none", vendor=True, index=index, cache=box / "pusher")
        pushed = repository.push(write_project(box), options)
        assert pushed.notes == ()
        repository.promotions.promote("hello", pushed.version)
        arguments = ("-m", "modelrepo_cli", "vendor", "hello", "--repo", str(box / "repository"), "--json")
        told = json.loads(on(THERE, box, *arguments, "--index-url", address))
        again = json.loads(on(HERE, box, *arguments, "--index-url", address, "--extra", "rocm"))
    shutil.rmtree(box / "torch")
    added = {(one["extra"], one["platform"], one["added"]) for one in told["bundles"]}
    assert added == {("cpu", THERE, True), ("cu128", THERE, True)}
    (note,) = told["notes"]
    assert "nothing was vendored for the extra rocm: torch==1+rocm travels with the version, but not for" in note
    assert [(one["extra"], one["added"]) for one in again["bundles"]] == [("rocm", False)]

    for system, extras in ((HERE, EXTRAS), (THERE, ("cpu", "cu128"))):
        shutil.rmtree(box / f"cache-{system}", ignore_errors=True)
        restored = on(system, box, "-c", RESTORE, str(box / "repository"), str(box / f"cache-{system}"), *extras)
        assert json.loads(restored) == {extra: [f"{extra}/{system}", system] for extra in extras}
