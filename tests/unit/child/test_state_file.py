from __future__ import annotations

import fcntl
import math
import os
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.child import saving, state_file
from modelrepo_runtime.child.room import MARGIN_BYTES, room_on_tmpfs
from modelrepo_runtime.child.saving import Saver

STATE: dict[str, Any] = {
    "step": 3,
    "big": 2**80,
    "text": "\ud800",
    "raw": b"\0\1",
    "pair": (1.5, [True, None, {"": b""}]),
}


def a_saver(folder: Path, **facts: Any) -> Saver:
    return Saver(
        {"folders": [str(folder / "memory"), str(folder / "disk")], "about": {"job": "j"}, "first": 1, **facts}
    )


def save(saver: Saver, state: dict[str, Any] | None = None) -> Path:
    saved = saver.save(STATE if state is None else state, {"fraction": 0.5})
    assert saved.path is not None, saved
    return saved.path


def test_what_is_read_is_what_was_saved(tmp_path: Path) -> None:
    path = save(a_saver(tmp_path), {**STATE, "nan": math.nan})
    found = state_file.read(path)
    assert math.isnan(found.pop("nan"))
    assert found == STATE
    assert type(found["pair"]) is tuple and type(found["pair"][1][0]) is bool
    about = state_file.read_about(path)
    assert (about["job"], about["number"], about["fraction"]) == ("j", 1, 0.5)


@pytest.mark.parametrize("value", [{1: 2}, {"x": {1}}, {"x": [object()]}, {"x": bytearray(1)}, {"x": os.stat_result}])
def test_what_no_file_can_hold_is_refused_by_its_key(tmp_path: Path, value: dict[Any, Any]) -> None:
    with pytest.raises(TypeError, match=r"cannot save state"):
        a_saver(tmp_path).save(value, {})
    assert not list(tmp_path.rglob("*.*"))


def test_a_state_that_holds_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["it"] = state
    with pytest.raises(TypeError, match="holds itself"):
        a_saver(tmp_path).save(state, {})


def test_no_torn_file_is_taken_for_whole(tmp_path: Path) -> None:
    path = save(a_saver(tmp_path))
    whole = path.read_bytes()
    torn = tmp_path / "torn"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        for rest in (b"", bytes(len(whole) - length)):  # cut off, and with a hole where the end should be
            torn.write_bytes(whole[:length] + rest)
            if torn.read_bytes() != whole:
                with pytest.raises(state_file.TornState):
                    state_file.read(torn)


def test_the_two_newest_are_kept_and_the_third_is_written_over(tmp_path: Path) -> None:
    saver = a_saver(tmp_path)
    inodes = []
    for step in range(5):
        path = save(saver, {"step": step})
        inodes.append(path.stat().st_ino)
        names = {each.name for each in path.parent.glob("*.state")}
        assert names == {f"{number}.state" for number in (step, step + 1) if number > 0}
    assert len(set(inodes)) == 3, "no file was written over"
    assert state_file.read(path.with_name("4.state")) == {"step": 3}
    saver.close()
    assert {each.name for each in path.parent.iterdir()} == {"4.state", "5.state"}
    assert saver.save({"step": 9}, {}).path is None


def test_a_file_that_is_read_is_not_written_over(tmp_path: Path) -> None:
    saver = a_saver(tmp_path)
    first = save(saver, {"step": 0})
    with first.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        os.link(first, tmp_path / "held")
        for step in range(1, 5):
            save(saver, {"step": step})
        assert state_file.read(tmp_path / "held") == {"step": 0}


def test_states_go_to_the_disk_where_shared_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "room_on_tmpfs", lambda _: 100)
    saver = a_saver(tmp_path)
    saved = saver.save(STATE, {})
    assert saved.path is not None and saved.path.parent == tmp_path / "disk"
    assert not saved.in_memory and "bytes are more than it has room for" in saved.why
    assert state_file.read(saved.path) == STATE


def test_a_state_for_which_there_is_no_room_at_all_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = a_saver(tmp_path)
    before = save(saver)
    monkeypatch.setattr(saving, "room_on_tmpfs", lambda _: 0)
    (tmp_path / "disk").write_text("in the way")
    saved = saver.save(STATE, {})
    assert saved.path is None and "disk" in saved.why
    assert state_file.read(before) == STATE
    assert a_saver(tmp_path, first=7).save({}, {}).path is None


def test_room_is_what_memory_and_control_groups_leave(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 204800 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    assert room_on_tmpfs(tmp_path, tmp_path) == 204800 * 1024 - MARGIN_BYTES
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000000\n")
    (group.parent / "memory.max").write_text("100000000\n")
    (group.parent / "memory.current").write_text("1000000\n")
    assert room_on_tmpfs(tmp_path, tmp_path) == 99_000_000 - MARGIN_BYTES
