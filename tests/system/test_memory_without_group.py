"""Children without a memory cgroup of their own, in one that is too small for what they do.

Needs the right to make memory cgroups, as root has on most machines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.supervision import find_memory_groups
from modelrepo_runtime.supervision.memory_group import MemoryGroup

pytestmark = pytest.mark.system

LIMIT_BYTES = 192 << 20

SUPERVISOR = """
import json, os, sys
from pathlib import Path
sys.stdin.readline()
from modelrepo_runtime.testing.children import a_request, a_spec, started

folder = Path(sys.argv[1])
child = started(a_spec(folder, sys.argv[2]))
score = Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip()
outcome = child.run(a_request(folder, {"hog": sys.argv[3]}), timeout_s=60)
child.stop(0)
print(json.dumps({"cause": outcome.cause, "error": outcome.error and outcome.error.message, "score": score}))
"""

HOG = """
import subprocess, sys
from pathlib import Path
def fill_up():
    "Somebody beside us takes all that there is, and is ended for it."
    code = "open('/proc/self/oom_score_adj', 'w').write('1000'); kept = [b'x' * (8 << 20) for _ in range(100)]"
    return subprocess.run([sys.executable, "-c", code]).returncode
"""


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """A cgroup with a limit, whose processes are ended one by one."""
    groups = find_memory_groups()
    assert groups.parent is not None, f"this test needs memory cgroups: {groups.problem}"
    made = groups.create("without", None)
    assert made is not None
    name = "memory.max" if made.version == 2 else "memory.limit_in_bytes"
    (made.folder / name).write_text(str(LIMIT_BYTES))
    yield made
    made.kill()
    assert made.remove()


def supervised(group: MemoryGroup, folder: Path, do: str) -> Any:
    """Run a job in a child of a process that is in the cgroup, as the child is then; that process must live on."""
    body = "\n".join(f"    {line}" for line in do.splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder), f"def run(self, job):\n{body}\n", HOG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    group.add(process.pid)
    said, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, "the supervisor was ended"
    return json.loads(said)


def test_a_child_that_the_kernel_ends_for_memory_is_told_from_a_crash(group: MemoryGroup, tmp_path: Path) -> None:
    told = supervised(group, tmp_path, "kept = [b'x' * (8 << 20) for _ in range(100)]")
    assert told["cause"] == "out_of_memory"
    assert "it was killed while the kernel ended processes for want of memory" in told["error"]
    assert "of the control group's 192.0 MiB" in told["error"]
    assert told["score"] == "500"


def test_a_child_that_somebody_kills_is_a_crash(group: MemoryGroup, tmp_path: Path) -> None:
    told = supervised(group, tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert told["cause"] == "crash"


def test_a_child_that_outlives_the_end_of_another_is_judged_by_its_own(group: MemoryGroup, tmp_path: Path) -> None:
    told = supervised(
        group, tmp_path, "exec(job.inputs['hog'], globals())\nassert fill_up() == -9\nraise ValueError('my own fault')"
    )
    assert (told["cause"], told["error"]) == ("exception", "ValueError: my own fault")
