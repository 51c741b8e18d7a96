"""A child that fills its memory cgroup: only that attempt is lost, and it is told from a crash.

Needs the right to make memory cgroups, as root has on most machines.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import MemoryGroups, find_memory_groups
from modelrepo_runtime.testing.children import a_request, a_spec, started, started_group

pytestmark = pytest.mark.system

LIMIT_BYTES = 128 << 20
GREEDY = """
def run(self, job):
    import os
    do = job.inputs["do"]
    if do == "little":
        self.kept = b"x" * (32 << 20)
        return "fine"
    if do == "kill itself":
        os.kill(os.getpid(), 9)
    if do == "in a helper":
        import subprocess, sys
        helper = subprocess.run([sys.executable, "-c", "b'x' * (512 << 20)"])
        raise RuntimeError(f"helper ended with {helper.returncode}")
    if do == "beside a helper that is not the largest":
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
"""


@pytest.fixture(scope="module")
def groups() -> MemoryGroups:
    found = find_memory_groups()
    assert found.parent is not None, f"this test needs memory cgroups: {found.problem}"
    return found


def left(groups: MemoryGroups) -> list[Path]:
    assert groups.parent is not None
    return list(groups.parent.glob("modelrepo-*"))


@pytest.mark.parametrize("do", ["fill it", "in a helper", "beside a helper that is not the largest"])
def test_filling_the_cgroup_costs_the_attempt_and_is_said_to_be_for_memory(
    tmp_path: Path, groups: MemoryGroups, do: str
) -> None:
    spec = a_spec(tmp_path, GREEDY, memory_limit_bytes=LIMIT_BYTES)
    child = started(spec, memory=groups)
    try:
        outcome = child.run(a_request(tmp_path, {"do": do}), timeout_s=60)
    finally:
        child.stop(0)
    assert outcome.cause is Cause.OUT_OF_MEMORY, outcome
    assert outcome.error is not None and "want of memory" in outcome.error.message
    assert re.search(
        r"its processes had 1\d\d\.\d MiB at most and may have 128\.0 MiB; free now: ", outcome.error.message
    )
    assert not left(groups)
    child = started(spec, memory=groups)
    try:
        assert child.run(a_request(tmp_path, {"do": "little"}), timeout_s=60).result == "fine"
    finally:
        child.stop(0)


def test_a_kill_that_is_not_for_memory_is_a_crash(tmp_path: Path, groups: MemoryGroups) -> None:
    child = started(a_spec(tmp_path, GREEDY, memory_limit_bytes=LIMIT_BYTES), memory=groups)
    outcome = child.run(a_request(tmp_path, {"do": "kill itself"}), timeout_s=60)
    assert outcome.cause is Cause.CRASH, outcome
    assert not left(groups)


def test_memory_that_python_says_ran_out_comes_with_figures(tmp_path: Path, groups: MemoryGroups) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): raise MemoryError('no')"), memory=groups)
    try:
        outcome = child.run(a_request(tmp_path), timeout_s=60)
    finally:
        child.stop()
    assert outcome.cause is Cause.OUT_OF_MEMORY and outcome.error is not None
    assert re.fullmatch(
        r"MemoryError: no; its processes had [\d.]+ MiB at most; free now: [\d.]+ GiB of [\d.]+ GiB on this box.*",
        outcome.error.message,
    )


def test_a_child_that_fills_its_cgroup_while_it_loads_says_so(tmp_path: Path, groups: MemoryGroups) -> None:
    code = "def load(self, ctx): self.kept = [b'x' * (8 << 20) for _ in range(100)]\ndef run(self, job): pass"
    with pytest.raises(EntrypointFailed, match=r"ended it for want of memory; its processes had 1.* MiB"):
        started(a_spec(tmp_path, code, memory_limit_bytes=LIMIT_BYTES), memory=groups)
    assert not left(groups)


def test_the_footprint_is_that_of_the_child_and_its_peak(tmp_path: Path, groups: MemoryGroups) -> None:
    child = started(a_spec(tmp_path, GREEDY), memory=groups)
    try:
        assert child.has_memory_group
        before = child.footprint()
        child.run(a_request(tmp_path, {"do": "little"}), timeout_s=60)
        after = child.footprint()
    finally:
        child.stop()
    assert after.rss_bytes - before.rss_bytes >= 30 << 20
    assert after.peak_bytes >= after.rss_bytes - (16 << 20)
    assert not left(groups)


GREEDY_RANK = """
def load(self, ctx): self.rank = ctx.rank
def run(self, job):
    if not job.inputs["greedy"]:
        return "fine"
    if self.rank == 0:
        import threading
        threading.Event().wait()
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
"""


def test_a_groups_ranks_share_one_cgroup_and_the_one_that_fills_it_is_named(
    tmp_path: Path, groups: MemoryGroups
) -> None:
    group = started_group(a_spec(tmp_path, GREEDY_RANK, ranks=2, memory_limit_bytes=LIMIT_BYTES), memory=groups)
    try:
        assert group.has_memory_group and len(left(groups)) == 1
        assert 0 < group.footprint().peak_bytes < LIMIT_BYTES
        assert group.run(a_request(tmp_path, {"greedy": False}), timeout_s=60).result == "fine"
        outcome = group.run(a_request(tmp_path, {"greedy": True}), timeout_s=60)
        assert outcome.cause is Cause.OUT_OF_MEMORY and outcome.error is not None, outcome
        assert outcome.error.message.startswith("rank 1: ")
        assert not group.alive
    finally:
        group.stop()
    assert not left(groups)


def test_a_group_that_drains_leaves_no_cgroup(tmp_path: Path, groups: MemoryGroups) -> None:
    group = started_group(a_spec(tmp_path, GREEDY_RANK, ranks=3), memory=groups)
    assert group.stop(30).step == "drained"
    assert not left(groups)
