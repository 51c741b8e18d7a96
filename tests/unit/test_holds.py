from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelrepo.errors import Stopped
from modelrepo.holds import Hold, holders_of, take, try_take

HOLD = "import sys, modelrepo.holds as h; from pathlib import Path; hold = h.take(Path(sys.argv[1]), shared=True)"
TELL = "; print(1, flush=True); sys.stdin.read()"


def taken(path: Path, *, shared: bool) -> Hold:
    hold = try_take(path, shared=shared)
    assert hold is not None
    return hold


def test_many_share_and_one_alone_excludes_all(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    one, two = taken(path, shared=True), taken(path, shared=True)
    assert try_take(path, shared=False) is None
    one.release()
    one.release()
    assert try_take(path, shared=False) is None
    two.release()
    with taken(path, shared=False):
        assert try_take(path, shared=True) is None
        with pytest.raises(Stopped, match="while somebody tidied"):
            take(path, shared=True, stop=lambda: True, what="somebody tidied")
    taken(path, shared=True).release()


def test_what_nothing_refers_to_is_held_no_longer(tmp_path: Path) -> None:
    hold = taken(tmp_path / "hold", shared=True)
    assert hold.fileno() > 2
    del hold
    gc.collect()
    assert try_take(tmp_path / "hold", shared=False) is not None


def test_the_hold_of_a_killed_process_is_free_and_that_of_its_child_is_not(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    child = "subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], pass_fds=(hold.fileno(),))"
    program = f"{HOLD}; import subprocess; {child}{TELL}"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"1\n"
        pids = holders_of(path)
        assert holder.pid in pids
        assert len(pids) == 2
        holder.kill()
        holder.wait()
        assert try_take(path, shared=False) is None
        holder.stdin.close()  # its child reads the end of it, and ends
        take(path, shared=False).release()
    assert holders_of(path) == ()
    assert holders_of(tmp_path / "absent") == ()


def test_who_waits_for_a_file_that_is_unlinked_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    evictor, found = taken(path, shared=False), list[Hold]()
    waiter = threading.Thread(target=lambda: found.append(take(path, shared=True)))
    waiter.start()
    path.unlink()
    evictor.release()
    waiter.join()
    assert try_take(path, shared=False) is None
    assert path.stat().st_ino == os.fstat(found[0].fileno()).st_ino


def test_use_stamps_the_file_and_a_look_at_it_does_not(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    path.touch()
    os.utime(path, (1.0, 1.0))
    taken(path, shared=False).release()
    assert path.stat().st_mtime == 1.0
    hold = taken(path, shared=True)
    assert path.stat().st_mtime > 1.0
    os.utime(path, (1.0, 1.0))
    hold.release()
    assert path.stat().st_mtime > 1.0


def test_who_may_only_read_holds_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, really = tmp_path / "hold", os.open

    def reading(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, flags, mode)

    path.touch()
    with monkeypatch.context() as patch:
        patch.setattr("modelrepo.holds.os.open", reading)
        held = taken(path, shared=True)
        with pytest.raises(PermissionError):
            try_take(path, shared=False)
        with pytest.raises(PermissionError):
            try_take(tmp_path / "absent", shared=True)
    assert try_take(path, shared=False) is None
    held.release()
    assert try_take(path, shared=False) is not None
