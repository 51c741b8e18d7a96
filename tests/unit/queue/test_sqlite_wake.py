from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo_runtime.queue.sqlite.wake import LONGEST_ADDRESS, LONGEST_DATAGRAM_BYTES, SocketWaiter, WakeFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WakeFolder]:
    with closing(WakeFolder(tmp_path / "q.db")) as opened:
        yield opened


def waiter(folder: WakeFolder, *models: str, jobs: tuple[str, ...] = (), poll_s: float = 0.2) -> SocketWaiter:
    return SocketWaiter(folder, models, jobs, poll_s)


def test_wake_ups_before_the_wait_are_not_lost(folder: WakeFolder) -> None:
    with closing(waiter(folder, "m")) as waiting:
        folder.tell({"m"}, set())
        assert waiting.wait(5)
        assert not waiting.wait(0)


def test_only_news_of_what_is_wanted_wakes(folder: WakeFolder) -> None:
    with closing(waiter(folder, "m", jobs=("job_1",))) as waiting:
        folder.tell({"n"}, {"job_2"})
        assert not waiting.wait(0.01)
        folder.tell({"n"}, {"job_2", "job_1"})
        assert waiting.wait(5)


def test_all_wake_ups_are_drained_by_one_wait(folder: WakeFolder) -> None:
    with closing(waiter(folder, "m")) as waiting:
        for _ in range(5):
            folder.tell({"m"}, set())
        assert waiting.wait(5)
        assert not waiting.wait(0)


def test_more_names_than_a_datagram_holds_wake_everybody(folder: WakeFolder) -> None:
    with closing(waiter(folder, jobs=("job_x",))) as waiting:
        folder.tell(set(), {f"job_{n:030}" for n in range(LONGEST_DATAGRAM_BYTES // 30)})
        assert waiting.wait(5)


def test_a_full_socket_never_blocks_the_sender(folder: WakeFolder) -> None:
    with closing(waiter(folder, "m")) as waiting:
        for _ in range(5000):
            folder.tell({"m"}, set())
        assert waiting.wait(5)


def test_sockets_of_the_dead_are_cleared_away(folder: WakeFolder) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = folder.address("m1-1")
    assert address is not None
    dead.bind(address)
    dead.close()
    folder.tell({"m"}, set())
    assert not any(folder.path.iterdir())


def test_closing_takes_the_sockets_away(folder: WakeFolder) -> None:
    waiting = waiter(folder, "m", jobs=("j",))
    assert len(list(folder.path.iterdir())) == 2
    waiting.close()
    waiting.close()
    assert not any(folder.path.iterdir())


def test_many_waiters_leave_nothing_behind(folder: WakeFolder) -> None:
    with closing(socket.socket()) as before:
        lowest = before.fileno()
    waiting = [waiter(folder, "m", jobs=("j",)) for _ in range(200)]
    folder.tell({"m"}, set())
    woken = [one.wait(5) for one in waiting]
    for one in waiting:
        one.close()
    for _ in range(200):
        waiter(folder, "m", jobs=("j",)).close()
    with closing(socket.socket()) as after:
        assert after.fileno() == lowest
    assert all(woken)
    assert not any(folder.path.iterdir())


def test_a_path_too_long_for_a_socket_still_wakes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * LONGEST_ADDRESS)
    deep.mkdir()
    with closing(WakeFolder(deep / "q.db")) as folder, closing(waiter(folder, "m")) as waiting:
        folder.tell({"m"}, set())
        assert waiting.wait(5)


def test_without_news_a_wait_ends_at_the_poll_interval(folder: WakeFolder) -> None:
    with closing(waiter(folder, "m", poll_s=0.01)) as waiting:
        assert not waiting.wait(60)


def test_a_vanished_folder_costs_a_wake_up_only(tmp_path: Path) -> None:
    with closing(WakeFolder(tmp_path / "q.db")) as folder:
        folder.path.rmdir()
        folder.tell({"m"}, set())
        with closing(waiter(folder, "m", poll_s=0.01)) as waiting:
            assert not waiting.wait(1)
