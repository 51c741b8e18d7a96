"""Lines of several ranks in one log."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from modelrepo_runtime.supervision.rank_logs import RankLogs


def test_each_line_has_its_rank_before_it_however_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    logs = RankLogs()
    zero, one = logs.of(0)(path), logs.of(1)(path)
    zero.write(b"one\ntw")
    one.write(b"\nother")
    zero.write(b"o\n")
    one.close()
    one.close()
    assert zero.recent().endswith("[rank 1] other\n")
    zero.write(b"last")
    zero.close()
    assert path.read_text() == "[rank 0] one\n[rank 1] \n[rank 0] two\n[rank 1] other\n[rank 0] last\n"


def test_a_log_that_is_held_is_not_begun_again_by_a_later_rank(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    logs = RankLogs()
    with logs.held(path):
        for rank in (0, 1):
            part = logs.of(rank)(path)
            part.write(b"here\n")
            part.close()
    assert path.read_text() == "[rank 0] here\n[rank 1] here\n"


def test_a_line_without_an_end_keeps_no_memory(tmp_path: Path) -> None:
    part = RankLogs().of(2)(tmp_path / "log.txt")
    for _ in range(40):
        part.write(b"x" * 10_000)
    part.close()
    text = (tmp_path / "log.txt").read_text()
    assert text.count("x") == 400_000 and all(line.startswith("[rank 2] x") for line in text.splitlines())
    assert len(text.splitlines()) > 1


def test_lines_of_ranks_that_write_at_once_stay_whole_and_are_echoed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    logs = RankLogs(echo=writing)
    path = tmp_path / "log.txt"

    def write(rank: int) -> None:
        part = logs.of(rank)(path)
        for number in range(200):
            part.write(b"line %d\n" % number)
        part.close()

    with logs.held(path):
        threads = [threading.Thread(target=write, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.close(writing)
    with os.fdopen(reading) as echoed:
        text = path.read_text()
        assert echoed.read() == text
    assert sorted(text.splitlines()) == sorted(
        f"[rank {rank}] line {number}" for rank in range(3) for number in range(200)
    )
