from __future__ import annotations

from collections import Counter
from pathlib import Path

from modelrepo.box_cache.inventory import Inventory, Item, Kind, Shortage, choose

HERE = Path("/cache")


def item(kind: Kind, name: str, *inodes: int, used: float = 0.0, environment: str = "", kept: bool = False) -> Item:
    return Item(kind, name, HERE / name, used, inodes, environment, kept=kept)


def stock(*items: Item) -> Inventory:
    names = Counter(inode for one in items for inode in one.inodes)
    return Inventory(items, dict.fromkeys(names, 10), names)


def names(chosen: list[Item] | None) -> list[str] | None:
    return None if chosen is None else [one.name for one in chosen]


def test_the_version_used_longest_ago_goes_first_and_no_more_than_needed() -> None:
    found = stock(item(Kind.VERSION, "new", 1, used=9.0), item(Kind.VERSION, "old", 2, used=1.0))
    assert names(choose(found, Shortage(10))) == ["old"]
    assert names(choose(found, Shortage(11))) == ["old", "new"]
    assert names(choose(found, Shortage())) == []
    assert names(choose(found, Shortage(inodes=1))) == ["old"]


def test_where_all_that_may_go_is_not_enough_nothing_goes() -> None:
    found = stock(item(Kind.VERSION, "old", 1), item(Kind.VERSION, "served", 2, 3, kept=True))
    assert choose(found, Shortage(20)) is None
    assert names(choose(found, Shortage(20), at_best=True)) == ["old"]


def test_a_content_goes_with_the_last_version_that_has_it() -> None:
    shared, own = item(Kind.CONTENT, "shared", 1), item(Kind.CONTENT, "own", 2)
    old = item(Kind.VERSION, "old", 1, 2, 10, used=1.0)
    found = stock(shared, own, old, item(Kind.VERSION, "served", 1, 11, kept=True))
    assert names(choose(found, Shortage(20))) == ["old", "own"]
    assert choose(found, Shortage(30)) is None
    found = stock(shared, own, old, item(Kind.VERSION, "new", 1, 11, used=2.0))
    assert names(choose(found, Shortage(30))) == ["old", "own", "new", "shared"]


def test_contents_and_leftovers_of_dead_fetches_go_in_their_turn_and_those_of_live_ones_stay() -> None:
    found = stock(
        item(Kind.VERSION, "old", 1, used=1.0),
        item(Kind.CONTENT, "unlinked", 2, used=2.0),
        item(Kind.LEFTOVER, "part", 3, used=3.0),
        item(Kind.CONTENT, "wanted", 4, kept=True),
        item(Kind.LEFTOVER, "coming", 5, kept=True),
    )
    assert names(choose(found, Shortage(30))) == ["old", "unlinked", "part"]
    assert choose(found, Shortage(31)) is None


def test_an_environment_goes_once_no_version_is_left_that_runs_in_it() -> None:
    old = item(Kind.VERSION, "old", 1, used=1.0, environment="torch")
    served = item(Kind.VERSION, "served", 2, environment="jax", kept=True)
    torch, jax = item(Kind.ENVIRONMENT, "torch", 3), item(Kind.ENVIRONMENT, "jax", 4)
    supply = item(Kind.SUPPLY, "uv", 3, 5)
    found = stock(old, served, torch, jax, supply)
    assert names(choose(found, Shortage(10))) == ["old"]
    assert names(choose(found, Shortage(30))) == ["old", "torch", "uv"]
    assert choose(found, Shortage(31)) is None
