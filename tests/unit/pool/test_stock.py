"""What fits and what goes, without a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelrepo_runtime.pool.stock import Headroom, Item, Stock, choose, lack

ITEMS = st.lists(
    st.builds(
        Item,
        key=st.uuids().map(str),
        size_bytes=st.integers(1, 100),
        last_used_ns=st.integers(0, 50),
        held=st.booleans(),
    ),
    max_size=12,
)


def test_need_margin_and_what_others_were_promised_must_fit_the_least_headroom() -> None:
    room = Headroom({"here": 100, "there": 60})
    stock = Stock(promised_bytes=30, unwritten_bytes=20)
    assert lack(30, stock, room, margin_bytes=10) is None
    missing = lack(31, stock, room, margin_bytes=10)
    assert missing is not None
    assert missing.size_bytes == 1
    assert "60 B are free there" in missing.where


def test_the_pool_stays_within_its_limit_whatever_is_free() -> None:
    stock = Stock((Item("a", 50),), leaving_bytes=20, promised_bytes=10)
    room = Headroom({"here": 10**9})
    assert lack(20, stock, room, 0, limit_bytes=100) is None
    missing = lack(25, stock, room, 0, limit_bytes=100)
    assert missing is not None
    assert missing.size_bytes == 5
    assert "it may hold 100 B and holds 80 B" in missing.where


@given(ITEMS, st.integers(0, 500))
def test_what_goes_is_enough_and_the_oldest_that_nobody_holds(items: list[Item], wanted: int) -> None:
    free = [item for item in items if not item.held]
    gone = choose(items, wanted)
    if gone is None:
        assert sum(item.size_bytes for item in free) < wanted
        everything = choose(items, wanted, at_best=True)
        assert everything is not None
        assert sorted(everything, key=repr) == sorted(free, key=repr)
        return
    assert all(not item.held for item in gone)
    assert sum(item.size_bytes for item in gone) >= wanted
    assert sum(item.size_bytes for item in gone[:-1]) < max(wanted, 1)
    stay = [item for item in free if item not in gone]
    assert all(went.last_used_ns <= stays.last_used_ns for went in gone for stays in stay)
