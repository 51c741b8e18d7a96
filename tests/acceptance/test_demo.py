"""`modelrepo demo` as a user runs it: real repository, environments, worker processes and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from modelrepo.environments import IndexSettings
from modelrepo_cli.demo import downloads, examples, kept_lock, png
from modelrepo_cli.demo.stage import RUNS_KEPT, new_folder
from tests.acceptance.packages import make_index, make_wheel, served

KEYS = {"jobs", "lost", "duplicates_accepted", "swaps", "rolled_back", "picture", "seconds"}
STARTED = re.compile(r"started (worker-\d), process (\d+)")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def demo(cache: Path, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELREPO_")}
    return subprocess.Popen(
        [sys.executable, "-m", "modelrepo_cli", "demo", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"MODELREPO_CACHE": str(cache)},
    )


def played(cache: Path, *arguments: str, timeout_s: float) -> tuple[dict[str, object], str]:
    process = demo(cache, "--json", *arguments)
    try:
        printed, told = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        printed, told = process.communicate(timeout=90)
        pytest.fail(f"the demo took longer than {timeout_s} s:\n{told}")
    assert process.returncode == 0, told
    found = json.loads(printed)
    assert isinstance(found, dict)
    assert not alive(told), told
    return found, told


def alive(told: str) -> list[int]:
    """Return the workers named in what the demo told that still run."""
    return [int(pid) for _, pid in STARTED.findall(told) if psutil.pid_exists(int(pid))]


def check_the_sums(found: dict[str, object]) -> None:
    assert set(found) == KEYS
    assert isinstance(found["jobs"], int)
    assert found["jobs"] > 20
    assert (found["lost"], found["duplicates_accepted"], found["rolled_back"]) == (0, 0, True)
    assert isinstance(found["swaps"], int)
    assert found["swaps"] >= 2


def test_the_demo_without_torch_loses_nothing(cache: Path) -> None:
    found, told = played(cache, timeout_s=90)
    check_the_sums(found)
    assert found["picture"] is None
    assert "bare Python: nothing is fetched" in told
    assert re.search(r"killed worker-1 \(SIGKILL\) with the long job at \d+%", told)
    assert re.search(r"the long job succeeded on worker-2/", told)
    assert len(STARTED.findall(told)) == 2


@pytest.mark.timeout(600)
def test_the_demo_with_torch_loses_nothing_and_draws(cache: Path) -> None:
    found, told = played(cache, "--torch", timeout_s=480)
    check_the_sums(found)
    assert re.search(r"torch 2\.13\.0\S*: ", told)
    picture = png.decode(Path(str(found["picture"])).read_bytes())
    v1, v2 = (ink(picture, half) for half in (0, 1))
    assert v1 != v2
    # A digit is a few dark strokes on paper: blank or filled pictures would say that nothing was drawn.
    assert all(0.03 < share < 0.5 for share in (v1, v2)), (v1, v2)


def test_a_second_run_asks_no_index(tmp_path: Path) -> None:
    index = IndexSettings.from_environment()
    first, second, other = (
        examples.assemble("hello-model", tmp_path / name, earlier=True) for name in ("first", "second", "other")
    )
    downloads.needs(first, index, tmp_path / "cache")
    kept_lock.keep(first, tmp_path / "locks", index)
    kept_lock.restore(second, tmp_path / "locks", index)
    assert (second / "uv.lock").read_bytes() == (first / "uv.lock").read_bytes()
    kept_lock.restore(other, tmp_path / "locks", replace(index, default_index="https://another.invalid/simple"))
    assert not (other / "uv.lock").exists()


def ink(picture: png.Grey, half: int) -> float:
    """Return the share of dark pixels in the left or right half."""
    middle = picture.width // 2
    rows = [row[:middle] if half == 0 else row[middle:] for row in picture.rows]
    return sum(sum(shade < 100 for shade in row) for row in rows) / (middle * picture.height)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(cache: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = demo(cache, "--json", "--folder", str(tmp_path / "demo"), stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if "users submit jobs" in line:
            break
    else:
        pytest.fail(f"the demo ended before its load began:\n{told}")
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert alive(told)
    process.send_signal(number)
    _, rest = process.communicate(timeout=90)
    assert process.returncode == 130, told + rest
    assert not [pid for pid in children if psutil.pid_exists(pid)], told + rest


def test_only_a_few_runs_are_kept(tmp_path: Path) -> None:
    made = [new_folder(tmp_path / "demo") for _ in range(RUNS_KEPT + 2)]
    assert len(set(made)) == len(made)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(
        path.name for path in made[-RUNS_KEPT:]
    )


def test_what_is_fetched_is_told_before_it_is(tmp_path: Path) -> None:
    """A real uv, a package in a folder of wheels, another one on an index."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "torch", "2.13.0+cpu", requires=["tinypart"])
    index = make_index(tmp_path / "index", [make_wheel(tmp_path / "made", "tinypart")])
    folder = examples.assemble("hello-model", tmp_path / "model", earlier=False)
    project = folder / "pyproject.toml"
    text = project.read_text(encoding="utf-8").replace(">=3.9", ">=3.11")
    project.write_text(text.replace("dependencies = []", 'dependencies = ["torch==2.13.0"]'), encoding="utf-8")
    with served(index) as url:
        settings = IndexSettings(default_index=url, find_links=(str(wheels),))
        needed = downloads.needs(folder, settings, tmp_path / "cache")
    assert [(package.name, package.on_this_box) for package in needed.packages] == [
        ("tinypart", False),
        ("torch", True),
    ]
    assert needed.to_fetch == 1
    told = "\n".join(downloads.describe(needed))
    assert "with torch 2.13.0+cpu: the CPU build" in told
    assert "1 package is fetched from the index now" in told
