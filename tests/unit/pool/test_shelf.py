"""A bounded folder of files that come and go: verified, held, evicted by last use."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelrepo.errors import Corrupt, NoSpace
from modelrepo_runtime.pool.shelf import Bytes, Limits, Shelf


def wanted(data: bytes, owner: str = "") -> Bytes:
    key = hashlib.sha256(owner.encode() + data).hexdigest()
    return Bytes(key, len(data), hashlib.sha256(data).hexdigest())


def a_shelf(folder: Path, size_bytes: int = 1000, files: int = 100, free_bytes: int = 1 << 30) -> Shelf:
    return Shelf(folder / "shelf", Limits(size_bytes, files), lambda: free_bytes)


def put(shelf: Shelf, data: bytes) -> None:
    shelf.bring(wanted(data), lambda: [data]).release()


def here(shelf: Shelf, data: bytes) -> bool:
    return (shelf.folder / "entries" / wanted(data).key).exists()


def test_what_is_brought_is_there_read_only_and_is_not_fetched_twice(tmp_path: Path) -> None:
    shelf, asked = a_shelf(tmp_path), list[int]()

    def pieces() -> Iterator[bytes]:
        asked.append(1)
        yield b"hel"
        yield b"lo"

    for _ in range(2):
        with_hold = shelf.bring(wanted(b"hello"), pieces)
        assert with_hold.path.read_bytes() == b"hello" and with_hold.path.stat().st_mode & 0o777 == 0o444
        with_hold.release()
    assert asked == [1] and shelf.used() == (1, 5)


@pytest.mark.parametrize("data", [b"hellO", b"hell", b"hello!"])
def test_other_bytes_than_were_named_never_lie_there(tmp_path: Path, data: bytes) -> None:
    shelf = a_shelf(tmp_path)
    with pytest.raises(Corrupt, match=wanted(b"hello").sha256):
        shelf.bring(wanted(b"hello"), lambda: [data])
    assert shelf.used() == (0, 0) and shelf.attach(wanted(b"hello")) is None


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, files=3)
    for data in (b"a", b"b", b"c"):
        put(shelf, data)
    put(shelf, b"a")
    put(shelf, b"d")
    assert [here(shelf, data) for data in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_bytes_are_bounded_as_files_are(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, size_bytes=10)
    for number in range(20):
        put(shelf, f"{number:04d}".encode())
        assert shelf.used()[1] <= 10
    assert shelf.used() == (2, 8)


def test_what_is_held_stays_and_what_does_not_fit_beside_it_is_refused(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, files=1)
    hold = shelf.bring(wanted(b"a"), lambda: [b"a"])
    with pytest.raises(NoSpace, match="is in use"):
        put(shelf, b"b")
    assert here(shelf, b"a") and shelf.used() == (1, 1)
    hold.release()
    put(shelf, b"b")
    assert not here(shelf, b"a") and here(shelf, b"b")


def test_what_could_never_fit_evicts_nothing(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, size_bytes=10)
    put(shelf, b"a")
    with pytest.raises(NoSpace):
        put(shelf, b"x" * 11)
    assert here(shelf, b"a")


def test_memory_that_others_took_is_given_back(tmp_path: Path) -> None:
    free = [1000]
    shelf = Shelf(tmp_path / "shelf", Limits(1000, 100), lambda: free[0], margin_bytes=100)
    for data in (b"a" * 50, b"b" * 50):
        put(shelf, data)
    shelf.relieve()
    assert shelf.used()[0] == 2 and shelf.evictable_bytes() == 100
    free[0] = 90
    shelf.relieve()
    assert not here(shelf, b"a" * 50) and here(shelf, b"b" * 50)


def test_an_entry_that_was_changed_is_fetched_anew(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path)
    put(shelf, b"hello")
    entry = shelf.folder / "entries" / wanted(b"hello").key
    entry.chmod(0o644)
    entry.write_bytes(b"hellO")
    again = shelf.bring(wanted(b"hello"), lambda: [b"hello"])
    assert again.path.read_bytes() == b"hello"
    again.release()


def test_what_a_dead_fetch_left_is_no_entry_and_goes(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, files=1)
    (shelf.folder / "incoming" / wanted(b"old").key).write_bytes(b"ol")
    put(shelf, b"new")
    assert shelf.used() == (1, 3) and here(shelf, b"new")


def test_of_many_that_want_one_file_a_single_one_fetches_it(tmp_path: Path) -> None:
    asked, begun, go = list[int](), threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        asked.append(1)
        begun.set()
        assert go.wait(20)
        yield b"hello"

    def bring(shelf: Shelf) -> bytes:
        hold = shelf.bring(wanted(b"hello"), pieces)
        data = hold.path.read_bytes()
        hold.release()
        return data

    shelves = [a_shelf(tmp_path), a_shelf(tmp_path)]  # as two workers of a box have
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(bring, shelves[number % 2]) for number in range(8)]
        assert begun.wait(20)
        go.set()
        assert [one.result() for one in found] == [b"hello"] * 8
    assert asked == [1]


def test_entries_come_and_go_under_many_hands_within_their_bound(tmp_path: Path) -> None:
    shelf = a_shelf(tmp_path, files=12)

    def use(start: int) -> None:
        for number in range(start, start + 40):
            data = f"adapter {number % 30}".encode()
            hold = shelf.bring(wanted(data), lambda data=data: [data])  # type: ignore[misc]
            assert hold.path.read_bytes() == data
            assert shelf.used()[0] <= 12
            hold.release()

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(use, start * 7) for start in range(4)]:
            one.result()
    assert shelf.used()[0] <= 12
