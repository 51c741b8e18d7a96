"""The line of progress: how fast, and how long still."""

from __future__ import annotations

import io

import pytest

from modelrepo_cli.progress import Bar, Rate, bar

MIB = 1 << 20


class Watched:
    """A bar on a terminal of ours, at times of ours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.bar = Bar(self.stream, clock=lambda: self.now)

    def at(self, now: float, done_bytes: int, total_bytes: int | None, phase: str = "fetch") -> str:
        """Report, and return the line as it then stands."""
        self.now = now
        self.bar(phase, done_bytes, total_bytes)
        return self.stream.getvalue().rpartition("\x1b[K")[2]


def test_rate_and_time_left_are_told() -> None:
    watched = Watched()
    watched.at(0.0, 0, 1000 * MIB)
    assert watched.at(2.0, 200 * MIB, 1000 * MIB).endswith("200.0 MiB of 1000.0 MiB  100.0 MiB/s  8 s left")
    assert watched.at(10.0, 1000 * MIB, 1000 * MIB).endswith("MiB/s")


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    for second in range(21):
        told = rate.count("fetch", 100 * MIB * min(second, 10) + 10 * MIB * max(second - 10, 0), second)
    assert told == 10 * MIB


def test_a_standstill_is_told() -> None:
    watched = Watched()
    for second in range(12):
        line = watched.at(second, 5 * MIB, 10 * MIB)
    assert line.endswith("stalled")


def test_a_new_phase_has_a_rate_of_its_own() -> None:
    watched = Watched()
    watched.at(0.0, 0, 100 * MIB, "hash")
    watched.at(5.0, 100 * MIB, 100 * MIB, "hash")
    assert "/s" not in watched.at(5.2, MIB, 100 * MIB, "send")
    assert "10.0 MiB/s" in watched.at(6.2, 11 * MIB, 100 * MIB, "send")


def test_what_has_no_known_end_has_a_rate_and_no_time_left() -> None:
    watched = Watched()
    watched.at(0.0, 0, None)
    assert watched.at(1.0, 4 * MIB, None).endswith("4.0 MiB  4.0 MiB/s")


def test_nothing_is_drawn_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        with bar(as_json=as_json) as shown:
            assert shown is None
    assert capsys.readouterr().err == ""
