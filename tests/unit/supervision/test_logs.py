import os
from pathlib import Path

import pytest

from modelrepo_runtime.supervision.logs import BoundedLog, LogDrain


def test_a_log_within_its_limit_is_kept_whole(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 100)
    for number in range(10):
        log.write(b"line %d...\n" % number)
    log.close()
    log.close()
    assert log.path.read_bytes() == b"".join(b"line %d...\n" % number for number in range(10))


@pytest.mark.parametrize("piece", [1, 3, 7, 50, 64, 1000])
def test_a_long_log_keeps_its_head_and_its_tail(tmp_path: Path, piece: int) -> None:
    whole = b"".join(b"%06d\n" % number for number in range(1000))
    log = BoundedLog(tmp_path / "log", 128)
    for start in range(0, len(whole), piece):
        log.write(whole[start : start + piece])
    log.close()
    head, marker, tail = log.path.read_bytes().partition(b"\n... 6872 bytes left out ...\n")
    assert marker and head == whole[:64] and tail == whole[-64:]


@pytest.mark.parametrize("lines", [3, 20, 1000])
def test_recent_is_the_newest_output_from_the_start_of_a_line(tmp_path: Path, lines: int) -> None:
    log = BoundedLog(tmp_path / "log", 128)
    for number in range(lines):
        log.write(b"%06d\n" % number)
    newest = [f"{number:06d}" for number in range(lines)][-4:]
    assert log.recent(32).splitlines() == newest
    log.close()


def test_a_full_disk_costs_the_log_and_nothing_else() -> None:
    log = BoundedLog(Path("/dev/full"), 128)
    log.write(b"x" * 1000)
    log.close()


def test_a_drain_gives_each_log_what_was_printed_while_it_was_current(tmp_path: Path) -> None:
    first, second = BoundedLog(tmp_path / "first"), BoundedLog(tmp_path / "second")
    drain = LogDrain("test", first)
    for number in range(100):
        os.write(drain.write_end, b"a%d\n" % number)
        drain.switch(second)
        os.write(drain.write_end, b"b%d\n" % number)
        drain.switch(None)
    drain.child_has_it()
    drain.close()
    drain.close()
    second.close()
    assert first.path.read_bytes() == b"".join(b"a%d\n" % number for number in range(100))
    assert second.path.read_bytes() == b"".join(b"b%d\n" % number for number in range(100))


def test_a_drain_ends_while_somebody_else_keeps_the_pipe_open(tmp_path: Path) -> None:
    drain = LogDrain("test", BoundedLog(tmp_path / "log"))
    kept = os.dup(drain.write_end)
    drain.child_has_it()
    os.write(kept, b"before")
    drain.close()
    os.close(kept)
    assert (tmp_path / "log").read_bytes() == b"before"
