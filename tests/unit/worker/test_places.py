import io
from pathlib import Path

import pytest

from modelrepo.errors import AlreadyServed
from modelrepo_runtime.accelerators import Device, lay_out
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.places import Places
from modelrepo_runtime.worker.upkeep import forget_old

DEVICES = tuple(Device("cuda", index, "H100", 80 << 30, f"GPU-{index}", "nvidia") for index in range(4))


def places(folder: Path) -> Places:
    return Places(folder, Journal(io.StringIO()))


@pytest.mark.parametrize(("first", "second"), [("2x2", "1"), ("0;1", "2,1"), ("0,1,2,3", "4x1")])
def test_workers_that_divide_the_devices_in_another_way_collide(tmp_path: Path, first: str, second: str) -> None:
    one, other = places(tmp_path), places(tmp_path)
    one.take(lay_out(first, 0, DEVICES))
    with pytest.raises(AlreadyServed, match="it is served by pid"):
        other.take(lay_out(second, 0, DEVICES))
    one.release()
    other.take(lay_out(second, 0, DEVICES))
    other.release()


def test_children_hold_the_locks_of_all_devices_of_their_slot(tmp_path: Path) -> None:
    taken = places(tmp_path)
    taken.take(lay_out("0,1;2", 1, DEVICES))
    assert list(taken) == ["cuda0", "cuda2", "cpu0"]
    assert [len(place.descriptors) for place in taken.values()] == [2, 1, 1]
    assert taken["cuda0"].folder == tmp_path / "cuda0"
    taken.release()
    taken.release()


def test_what_others_remove_meanwhile_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job").mkdir()
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([tmp_path / "gone", tmp_path / "job"]))
    forget_old(tmp_path, -1.0)
    assert not (tmp_path / "job").exists()
