import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo.errors import AlreadyServed
from modelrepo_runtime.worker.locks import SlotLocks, holders_of


def nothing_left(folder: Path) -> tuple[int, ...]:
    return ()


def test_a_slot_has_one_owner(tmp_path: Path) -> None:
    first, second = SlotLocks(tmp_path, "cuda0"), SlotLocks(tmp_path, "cuda0")
    assert first.acquire(nothing_left) == ()
    with pytest.raises(AlreadyServed, match=f"slot cuda0: it is served by pid {os.getpid()}; stop that worker"):
        second.acquire(nothing_left)
    first.release()
    first.release()
    second.acquire(nothing_left)
    second.release()


def test_what_a_killed_owner_left_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "children" / "1").mkdir(parents=True)
    ended: list[Path] = []

    def end(folder: Path) -> tuple[int, ...]:
        ended.append(folder)
        return (77,)

    locks = SlotLocks(tmp_path, "cuda0")
    assert locks.acquire(end) == (77,)
    assert ended == [tmp_path / "children" / "1"]
    assert not ended[0].exists()
    locks.release()


def test_a_slot_is_free_only_when_its_last_process_is_gone(tmp_path: Path) -> None:
    locks = SlotLocks(tmp_path, "cuda0")
    locks.acquire(nothing_left)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(locks.slot_descriptor,),
    )
    assert child.stdout is not None
    child.stdout.readline()
    locks.release()
    again = SlotLocks(tmp_path, "cuda0")
    with pytest.raises(AlreadyServed, match=rf"processes of an earlier worker hold it \(pids {child.pid}\)"):
        again.acquire(nothing_left, limit_s=0.1)
    assert holders_of(tmp_path / "slot.lock") == (child.pid,)
    child.communicate()
    again.acquire(nothing_left)
    again.release()


def test_a_process_that_cannot_be_ended_keeps_the_slot(tmp_path: Path) -> None:
    (tmp_path / "children" / "1").mkdir(parents=True)

    def survives(folder: Path) -> tuple[int, ...]:
        raise TimeoutError("process 5 survives SIGKILL")

    locks = SlotLocks(tmp_path, "cuda0")
    with pytest.raises(AlreadyServed, match="process 5 survives SIGKILL; it needs a restart of the box"):
        locks.acquire(survives)
    free = SlotLocks(tmp_path, "cuda0")
    with pytest.raises(AlreadyServed, match="survives"):
        free.acquire(survives)
