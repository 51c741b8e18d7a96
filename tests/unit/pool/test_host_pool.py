"""One pool in one process: what comes in, what is found, what goes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.errors import Corrupt, InvalidInput, NoSpace, Stopped, Unsuitable
from modelrepo_runtime.pool import filling
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.memory_node import NODES, find_node
from modelrepo_runtime.pool.reading import ColdFile, buffer
from modelrepo_runtime.pool.stock import Headroom

from .conftest import MIB, some_bytes, write

PLENTY = Headroom({"here": 1 << 40})


def a_pool(folder: Path, limit_bytes: int = 64 * MIB, headroom: Headroom = PLENTY, margin_bytes: int = 0) -> HostPool:
    return HostPool(folder, limit_bytes, margin_bytes=margin_bytes, headroom=lambda: headroom)


def test_a_file_is_brought_once_sealed_and_found_again(folder: Path, tmp_path: Path) -> None:
    data = some_bytes("a", 3 * MIB + 17)
    content = write(tmp_path / "a", data)
    pool = a_pool(folder)
    assert pool.attach(content) is None
    with_file = pool.bring(content, tmp_path / "a")
    assert with_file.path.read_bytes() == data
    assert with_file.path.stat().st_mode & 0o777 == 0o444
    assert (with_file.size_bytes, with_file.mtime_ns) == (len(data), with_file.path.stat().st_mtime_ns)
    (tmp_path / "a").unlink()
    again = a_pool(folder).bring(content, tmp_path / "a")
    assert again.path.samefile(with_file.path)
    assert not list((folder / "incoming").iterdir())


@pytest.mark.parametrize("direct", [True, False])
def test_what_is_read_is_what_lies_there_wherever_the_cuts_are(tmp_path: Path, direct: bool) -> None:
    data = some_bytes("odd", 2 * MIB + 4097)
    (tmp_path / "a").write_bytes(data)
    with ColdFile(tmp_path / "a", direct=direct) as cold:
        own = buffer()
        for start, end in [(0, 1), (4095, 4097), (1, 2 * MIB), (8192, len(data)), (len(data) - 1, len(data))]:
            parts = [(at, bytes(piece)) for at, piece in cold.pieces(start, end, own)]
            assert b"".join(part for _, part in parts) == data[start:end]
            assert parts[0][0] == start
        assert b"".join(bytes(piece) for _, piece in cold.pieces(MIB, 9 * MIB, own)) == data[MIB:]


@pytest.mark.parametrize("damage", ["flipped", "short"])
def test_a_damaged_source_never_gets_a_name_in_the_pool(folder: Path, tmp_path: Path, damage: str) -> None:
    data = some_bytes("a")
    content = write(tmp_path / "a", data)
    spoilt = data[:-1] if damage == "short" else data[:500_000] + bytes([data[500_000] ^ 1]) + data[500_001:]
    (tmp_path / "a").write_bytes(spoilt)
    pool = a_pool(folder)
    with pytest.raises(Corrupt, match="/a") as raised:
        pool.bring(content, tmp_path / "a")
    assert raised.value.digest in {chunk.sha256 for chunk in content.chunks}
    assert pool.report().used_bytes == 0
    assert not list((folder / "incoming").iterdir())


def test_what_nobody_holds_goes_least_recently_used_first(folder: Path, tmp_path: Path) -> None:
    contents = {name: write(tmp_path / name, some_bytes(name)) for name in "abcd"}
    pool = a_pool(folder, limit_bytes=3 * MIB)
    for name in "abc":
        pool.bring(contents[name], tmp_path / name).release()
    held = pool.bring(contents["a"], tmp_path / "a")
    assert held is not None
    pool.bring(contents["d"], tmp_path / "d").release()
    assert {name for name in "abcd" if pool.attach(contents[name])} == {"a", "c", "d"}


def test_a_map_keeps_an_entry_though_its_hold_was_let_go(folder: Path, tmp_path: Path) -> None:
    content, other = write(tmp_path / "a", some_bytes("a")), write(tmp_path / "b", some_bytes("b"))
    pool = a_pool(folder, limit_bytes=MIB)
    attached = pool.bring(content, tmp_path / "a")
    view = mmap.mmap(attached.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    attached.release()
    with pytest.raises(NoSpace, match=r"1.0 MiB of the pool are in use"):
        pool.bring(other, tmp_path / "b")
    assert pool.shrink(MIB) == 0
    view.close()
    assert pool.shrink(1) == MIB
    pool.bring(other, tmp_path / "b")


@pytest.mark.parametrize("how", ["written", "truncated", "replaced", "a link"])
def test_an_entry_that_was_touched_is_brought_anew_and_its_old_bytes_count(
    folder: Path, tmp_path: Path, how: str
) -> None:
    data = some_bytes("a")
    content = write(tmp_path / "a", data)
    pool = a_pool(folder)
    old = pool.bring(content, tmp_path / "a")
    view = mmap.mmap(old.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    old.path.chmod(0o600)
    if how == "written":
        with old.path.open("r+b") as file:
            file.write(b"x")
    elif how == "truncated":
        os.truncate(old.path, MIB - 1)
    else:
        old.path.unlink()
        if how == "replaced":
            old.path.write_bytes(data)
        else:
            old.path.symlink_to(tmp_path / "a")
    new = pool.bring(content, tmp_path / "a")
    assert new.path.read_bytes() == data
    assert not new.path.is_symlink()
    if how in ("written", "truncated"):
        assert pool.report().used_bytes >= 2 * MIB - 4096
        old.release()
        view.close()
    assert pool.report().used_bytes == MIB
    assert not list((folder / "leaving").iterdir())


def test_room_is_read_again_before_each_step(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "STEP_BYTES", MIB)
    content = write(tmp_path / "a", some_bytes("a", 8 * MIB))
    free = iter([100 * MIB, *(room * MIB for room in (9, 7, 5))])
    seen: list[int] = []

    def headroom() -> Headroom:
        seen.append(next(free, 3 * MIB))
        return Headroom({"in the control group": seen[-1]})

    pool = HostPool(folder, 64 * MIB, margin_bytes=3 * MIB, headroom=headroom)
    with pytest.raises(NoSpace, match=r"3.0 MiB are free in the control group, of which 3.0 MiB stay free"):
        pool.bring(content, tmp_path / "a")
    assert seen[:5] == [100 * MIB, 9 * MIB, 7 * MIB, 5 * MIB, 3 * MIB]
    assert not list((folder / "incoming").iterdir())


def test_a_step_that_lacks_room_takes_it_from_what_nobody_uses(folder: Path, tmp_path: Path) -> None:
    old, new = write(tmp_path / "a", some_bytes("a")), write(tmp_path / "b", some_bytes("b"))
    pool = HostPool(folder, 64 * MIB, margin_bytes=0, headroom=lambda: Headroom({"here": 2 * MIB - _used(folder)}))
    pool.bring(old, tmp_path / "a").release()
    assert pool.bring(new, tmp_path / "b")
    third = write(tmp_path / "c", some_bytes("c"))
    assert pool.bring(third, tmp_path / "c")
    assert pool.attach(old) is None


def test_memory_pressure_takes_what_is_beyond_the_margin(folder: Path, tmp_path: Path) -> None:
    free = [10 * MIB]
    pool = HostPool(folder, 64 * MIB, margin_bytes=2 * MIB, headroom=lambda: Headroom({"here": free[0]}))
    for name in "abc":
        pool.bring(write(tmp_path / name, some_bytes(name)), tmp_path / name).release()
    assert pool.relieve() == 0
    free[0] = MIB
    assert pool.relieve() == MIB
    assert pool.report().entries == 2
    assert pool.evictable_bytes() == 2 * MIB


def test_a_stop_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    content = write(tmp_path / "a", some_bytes("a"))
    asked: Iterator[bool] = iter([False, False, True])
    pool = a_pool(folder)
    with pytest.raises(Stopped, match="brought into the pool"):
        pool.bring(content, tmp_path / "a", lambda: next(asked, True))
    assert pool.report().used_bytes == 0


def test_a_pool_is_on_tmpfs_and_ours_alone(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="not on tmpfs"):
        HostPool(Path("/proc/self/pool"))
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(Unsuitable, match="we alone may write"):
        a_pool(folder)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(Unsuitable, match="we alone"):
        a_pool(folder)


def test_a_memory_node_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0,2-3\n")
    with pytest.raises(InvalidInput, match=r"memory node 1: online are 0, 2, 3"):
        find_node(1, tmp_path)


@pytest.mark.system
def test_a_pool_on_a_memory_node_leaves_other_threads_where_they_were(folder: Path, tmp_path: Path) -> None:
    assert (NODES / "online").exists(), f"this test needs a kernel that shows its memory nodes under {NODES}"
    number = int((NODES / "online").read_text().split("-")[0].split(",")[0])
    node = find_node(number)
    assert node.free_bytes() > 0
    data = some_bytes("a")
    content = write(tmp_path / "a", data)
    attached = HostPool(folder, 64 * MIB, margin_bytes=0, node=node).bring(content, tmp_path / "a")
    assert attached.path.read_bytes() == data
    kept = Path("/proc/self/numa_maps").read_text()
    assert f"bind:{number}" not in kept


def _used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
