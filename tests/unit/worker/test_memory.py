from pathlib import Path

import psutil
import pytest

from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.memory import Reservations, host_room
from modelrepo_runtime.worker.suspend import boottime, must_renew
from modelrepo_runtime.worker.swap_plan import Room


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_without_a_control_group_all_available_memory_is_free(tmp_path: Path) -> None:
    room = host_room(tmp_path)
    assert room.total_bytes == psutil.virtual_memory().total
    assert 0 < (room.free_bytes or 0) <= psutil.virtual_memory().total


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_control_group_decides(tmp_path: Path, version: int) -> None:
    if version == 2:
        write(
            tmp_path,
            {
                "proc/self/cgroup": "0::/pod/box",
                "sys/fs/cgroup/pod/box/memory.max": "max",
                "sys/fs/cgroup/pod/box/memory.current": 900,
                "sys/fs/cgroup/pod/memory.max": 1000,
                "sys/fs/cgroup/pod/memory.current": 900,
                "sys/fs/cgroup/pod/memory.stat": "anon 5\ninactive_file 300",
            },
        )
    else:
        write(
            tmp_path,
            {
                "proc/self/cgroup": "3:cpu:/x\n4:memory:/pod/box",
                "sys/fs/cgroup/memory/pod/box/memory.limit_in_bytes": 1000,
                "sys/fs/cgroup/memory/pod/box/memory.usage_in_bytes": 900,
                "sys/fs/cgroup/memory/pod/box/memory.stat": "inactive_file 1\ntotal_inactive_file 300",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": 5000,
            },
        )
    room = host_room(tmp_path)
    assert (room.free_bytes, room.total_bytes) == (400, 1000)


def test_in_a_container_the_mount_is_our_own_group(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outside/path",
            "sys/fs/cgroup/memory.max": 1000,
            "sys/fs/cgroup/memory.current": 100,
        },
    )
    assert host_room(tmp_path).free_bytes == 900


def test_what_nobody_uses_of_the_pool_counts_as_free(tmp_path: Path) -> None:
    group = {"memory.max": 1000, "memory.current": 900}
    files: dict[str, object] = {f"sys/fs/cgroup/{name}": value for name, value in group.items()}
    write(tmp_path, {"proc/self/cgroup": "0::/outside/path", **files})
    assert host_room(tmp_path, lambda: 300).free_bytes == 400
    assert host_room(tmp_path, lambda: 5000) == Room(1000, 1000), "never more than there is"


def test_children_that_load_at_once_see_each_others_promises() -> None:
    reservations, here, there = Reservations(), frozenset({"cuda:0"}), frozenset({"cuda:1"})
    room = Room(1000, 2000)
    with reservations.of(Footprint(300, 600), here):
        assert reservations.less(room, room, here) == (Room(700, 2000), Room(400, 2000))
        assert reservations.less(room, room, there) == (Room(700, 2000), room)
        assert reservations.less(Room(None, None), None, here) == (Room(None, None), None)
    assert reservations.less(room, room, here) == (room, room)


def test_a_lease_is_renewed_before_late_work() -> None:
    assert not must_renew(100.0, 103.0, 6.0)
    assert must_renew(100.0, 103.1, 6.0)
    assert boottime() <= boottime()
