from __future__ import annotations

import pytest

from modelrepo.clock import Clock
from modelrepo.copying.pace import Pace
from modelrepo.errors import Stopped


class Turned:
    """A clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, monotonic=lambda: self.seconds, sleep=self.sleep)


def never() -> bool:
    return False


def test_bytes_move_no_faster_than_the_rate_on_average() -> None:
    turned = Turned()
    pace = Pace(1000, clock=turned.clock())
    for _ in range(11):
        pace.wait_for(500, never)
    assert turned.seconds == pytest.approx(105.0)  # ten of them, and the eleventh may begin


def test_time_in_which_nothing_moved_is_not_made_up_for() -> None:
    turned = Turned()
    pace = Pace(1000, clock=turned.clock())
    pace.wait_for(500, never)
    turned.seconds += 3600
    for _ in range(3):
        pace.wait_for(1000, never)
    assert turned.seconds == pytest.approx(3702.0)


def test_without_a_rate_nobody_waits() -> None:
    turned = Turned()
    Pace(None, clock=turned.clock()).wait_for(1 << 60, never)
    assert turned.seconds == 100.0


def test_a_long_wait_ends_when_it_is_asked_to() -> None:
    turned = Turned()
    pace = Pace(1, clock=turned.clock())
    pace.wait_for(1_000_000, never)
    with pytest.raises(Stopped):
        pace.wait_for(1, lambda: turned.seconds >= 105)
    assert turned.seconds < 106
