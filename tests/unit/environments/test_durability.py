from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelrepo.environments import durability
from modelrepo.environments.durability import make_durable


class Box:
    """uv's cache with one archive, environments that are links into it, and what was synced."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uv, self.folder = folder / "uv", folder
        self.unpack("one")
        self.everything, self.single = 0, list[str]()
        monkeypatch.setattr(os, "sync", self._sync)
        monkeypatch.setattr(durability, "_sync", lambda path: self.single.append(path.name))

    def _sync(self) -> None:
        self.everything += 1

    def unpack(self, name: str) -> None:
        archive = self.uv / "archive-v0" / name
        archive.mkdir(parents=True)
        (archive / "METADATA").write_text("Name: one\n")
        (archive / "module.py").write_text("")

    def build(self, name: str, *, linked: bool = True) -> Path:
        building = self.folder / name
        site = building / "lib" / "python3.11" / "site-packages"
        (site / "one.dist-info").mkdir(parents=True)
        (building / "bin").mkdir()
        (building / "bin" / "tool").write_text("")
        (building / "bin" / "python").symlink_to("/nowhere/python")
        (site / "one.dist-info" / "RECORD").write_text("")
        for target, source in (("one.dist-info/METADATA", "METADATA"), ("module.py", "module.py")):
            if linked:
                os.link(self.uv / "archive-v0" / "one" / source, site / target)
            else:
                (site / target).write_bytes((self.uv / "archive-v0" / "one" / source).read_bytes())
        return building


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def test_a_build_that_unpacked_something_has_everything_written_down(box: Box) -> None:
    make_durable(box.build("a"), box.uv, copied=False)
    assert (box.everything, box.single) == (1, [])


def test_links_into_what_is_durable_sync_their_own_files_alone(box: Box) -> None:
    make_durable(box.build("a"), box.uv, copied=False)
    make_durable(box.build("b"), box.uv, copied=False)
    assert box.everything == 1
    assert sorted(box.single) == ["RECORD", "tool"]


def test_an_archive_that_came_since_is_not_durable(box: Box) -> None:
    make_durable(box.build("a"), box.uv, copied=False)
    box.unpack("two")
    make_durable(box.build("b"), box.uv, copied=False)
    assert box.everything == 2


@pytest.mark.parametrize("said", [True, False])
def test_copies_have_everything_written_down(box: Box, said: bool) -> None:
    make_durable(box.build("a"), box.uv, copied=False)
    make_durable(box.build("b", linked=said), box.uv, copied=said)
    assert box.everything == 2


def test_a_note_that_cannot_be_read_says_nothing(box: Box) -> None:
    make_durable(box.build("a"), box.uv, copied=False)
    (box.uv / durability.DURABLE).write_text("{torn")
    make_durable(box.build("b"), box.uv, copied=False)
    assert box.everything == 2
