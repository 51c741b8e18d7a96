import os
import subprocess
from pathlib import Path

import pytest

from modelrepo_runtime.supervision.memory_group import MemoryGroup, MemoryGroups, find_memory_groups, remove_abandoned


def files(tmp_path: Path, mounts: str, membership: str) -> tuple[Path, Path]:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "cgroup").write_text(membership)
    return tmp_path / "mounts", tmp_path / "cgroup"


def test_v1_children_go_below_our_own_group(tmp_path: Path) -> None:
    own = tmp_path / "memory" / "box"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text("1")
    groups = find_memory_groups(
        *files(tmp_path, f"cgroup {tmp_path}/memory cgroup rw,memory 0 0\n", "4:memory:/box\n0::/\n")
    )
    assert (groups.parent, groups.version, groups.problem) == (own, 1, None)


def test_v1_inside_a_container_whose_path_is_not_mounted_uses_the_mount(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1")
    groups = find_memory_groups(
        *files(tmp_path, f"cgroup {tmp_path}/memory cgroup rw,memory 0 0\n", "4:memory:/docker/abc\n")
    )
    assert groups.parent == tmp_path / "memory"


def test_v2_with_the_controller_delegated_can_be_divided(tmp_path: Path) -> None:
    own = tmp_path / "unified" / "worker.service"
    own.mkdir(parents=True)
    for name, text in [("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", ""), ("cgroup.procs", "")]:
        (own / name).write_text(text)
    groups = find_memory_groups(
        *files(tmp_path, f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0\n", "0::/worker.service\n")
    )
    assert (groups.parent, groups.version) == (own, 2)
    assert (own / "cgroup.subtree_control").read_text() == "+memory"


@pytest.mark.parametrize(
    ("mounts", "membership", "words"),
    [
        ("", "", "no memory controller is mounted"),
        ("cgroup2 {}/unified cgroup2 rw 0 0\n", "0::/\n", "has no memory controller"),
        ("cgroup {}/gone cgroup rw,memory 0 0\n", "4:memory:/\n", "no cgroup may be made under"),
    ],
)
def test_where_there_can_be_no_group_the_reason_is_said(
    tmp_path: Path, mounts: str, membership: str, words: str
) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").write_text("cpu pids")
    groups = find_memory_groups(*files(tmp_path, mounts.format(tmp_path), membership))
    assert groups.parent is None and groups.problem is not None and words in groups.problem
    assert groups.create("demo", 1 << 20) is None


@pytest.mark.parametrize(("version", "file"), [(1, "memory.oom_control"), (2, "memory.events")])
def test_the_counter_of_kills_is_read_from_either_version(tmp_path: Path, version: int, file: str) -> None:
    group = MemoryGroup(tmp_path, version)
    assert group.out_of_memory_kills() == 0
    (tmp_path / file).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert group.out_of_memory_kills() == 3


def test_groups_of_workers_that_are_gone_are_removed_and_no_others(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f"modelrepo-{gone.pid}-1-demo", f"modelrepo-{os.getpid()}-1-demo", "modelrepo-worker"]
    for name in names:
        (tmp_path / name).mkdir()
    remove_abandoned(MemoryGroups(tmp_path, 2))
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
