"""What only a store of local files can do wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import Forbidden, NoSpace, ObjectChanged, ObjectExists, Unreachable
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.folder_lock import folder_lock
from modelrepo.stores.port import LocalFolders
from modelrepo.stores.probe import probe
from modelrepo.stores.renames import _exchange, exchange_names


def failing(error: int) -> Any:
    def call(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    store = FilesystemStore(tmp_path / "root")
    monkeypatch.setattr(os, "write", failing(error))
    calls: list[Callable[[str, bytes], None]] = [store.create, store.replace]
    for call in calls:
        with pytest.raises(NoSpace, match=r"a/b.*1,234 bytes wanted, [0-9,]+ free") as caught:
            call("a/b", b"x" * 1234)
        assert caught.value.errno == error
    assert names(tmp_path / "root" / "a") == []


def test_a_refusing_file_system_names_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemStore(tmp_path)
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    with pytest.raises(Forbidden, match="user id"):
        store.create("a", b"")


def test_a_failing_disk_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemStore(tmp_path)
    store.create("a", b"1")
    monkeypatch.setattr(Path, "read_bytes", failing(errno.ESTALE))
    with pytest.raises(Unreachable, match="mount"):
        store.read("a")
    monkeypatch.setattr(os, "scandir", failing(errno.EIO))
    with pytest.raises(Unreachable):
        list(store.list(""))


def test_a_second_name_after_eexist_is_a_lost_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_forget(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "over NFS")

    store = FilesystemStore(tmp_path)
    monkeypatch.setattr(os, "link", link_and_forget)
    store.create("a", b"ours")
    assert store.read("a") == b"ours"
    assert names(tmp_path) == ["a"]


def test_a_file_system_without_links_is_known_by_its_ability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemStore(tmp_path)
    monkeypatch.setattr(os, "link", failing(errno.EOPNOTSUPP))
    store.create("a", b"1")
    with pytest.raises(ObjectExists):
        store.create("a", b"2")
    assert not store.ability.conditional_create
    assert not probe(store, creators=1, rounds=1).trusted


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    store.create("a/b", b"1")
    (tmp_path / "a" / ".tmp-0123").write_bytes(b"half")
    assert [stat.key for stat in store.list("")] == ["a/b"]


def test_files_and_folders_are_synced_before_a_create_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    FilesystemStore(tmp_path / "root").create("a/b", b"1")
    order = [tmp_path, tmp_path / "root", tmp_path / "root/a/b", tmp_path / "root/a"]
    assert synced == [path.stat().st_ino for path in order]


@pytest.mark.parametrize("system_call", [True, False])
def test_names_are_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_call: bool) -> None:
    if not system_call:
        monkeypatch.setattr("modelrepo.stores.renames._system_call", lambda: None)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    exchange_names(one, other)
    assert (one.exists(), other.read_bytes()) == (False, b"1")
    one.write_bytes(b"2")
    exchange_names(one, other)
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")
    assert _exchange(one, tmp_path / "none") is False


def test_exchange_returns_what_was_there(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    assert isinstance(store, LocalFolders)
    assert store.exchange("a", b"1") is None
    assert store.exchange("a", b"2") == b"1"
    assert store.read("a") == b"2"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("network", [False, True])
def test_a_folder_is_locked_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool) -> None:
    if network:
        import fcntl
        import stat

        flock = fcntl.flock

        def files_only(descriptor: int, how: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EBADF, "over NFS")
            flock(descriptor, how)

        monkeypatch.setattr("modelrepo.stores.folder_lock.fcntl.flock", files_only)
    entered, released = threading.Event(), threading.Event()
    order: list[str] = []

    def second() -> None:
        entered.set()
        with folder_lock(tmp_path):
            order.append("second")
        released.set()

    with folder_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(30)
        order.append("first")
    assert released.wait(30)
    thread.join(30)
    assert order == ["first", "second"]
    assert list(FilesystemStore(tmp_path).list("")) == []


def test_a_name_taken_by_a_broken_link_is_refused_in_its_own_words(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(ObjectChanged, match="broken link"):
        store.create("a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_that_is_free_again_at_the_second_look_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = FilesystemStore(tmp_path), tmp_path / "a"
    path.write_bytes(b"an editor's")
    link = os.link

    def vanish(source: Path, target: Path) -> None:
        try:
            link(source, target)
        finally:
            monkeypatch.setattr(os, "link", link)
            path.unlink()

    monkeypatch.setattr(os, "link", vanish)
    store.create("a", b"x")
    assert path.read_bytes() == b"x"


def test_without_links_of_many_creators_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        store = FilesystemStore(tmp_path)
        start.wait(timeout=30)
        try:
            store.create("a", str(number).encode())
        except ObjectExists:
            return False
        return True

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(race, range(8))) == 1
        (tmp_path / "a").unlink()


def test_a_range_beyond_the_end_costs_no_more_than_what_is_there(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    store.create("key", b"0123456789")
    assert store.read_range("key", 4, 2**60) == b"456789"
