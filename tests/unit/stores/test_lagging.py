from __future__ import annotations

from modelrepo.stores.lagging import Lag, LaggingStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.interleaving import Actor, Interleaving


class Turned:
    """A clock that somebody turns, and how far behind listings are."""

    now = 1000.0
    behind = 0.0


def test_a_listing_shows_what_was_there_before_and_everything_else_what_is() -> None:
    time = Turned()
    bucket = MemoryBucket(clock=lambda: time.now)
    lag = Lag(lambda: time.now, lambda: time.behind, 60.0)
    one, other = (LaggingStore(MemoryStore("m", bucket), lag) for _ in range(2))
    one.create("a/old", b"1")
    time.now += 30
    one.create("a/new", b"2")
    one.delete("a/old")
    one.create("b/new", b"3")
    time.now += 10
    assert [stat.key for stat in other.list("a/")] == ["a/new"]
    time.behind = 20
    assert [stat.key for stat in other.list("a/")] == ["a/old"]
    assert other.read("a/new") == b"2"
    time.behind = 60
    assert [stat.key for stat in other.list("")] == []
    time.behind = 1000  # no further behind than was said at most
    time.now += 50
    assert [stat.key for stat in other.list("")] == ["a/new", "b/new"]


def test_a_replaced_object_is_listed_as_it_was() -> None:
    time = Turned()
    bucket = MemoryBucket(clock=lambda: time.now)
    store = LaggingStore(MemoryStore("m", bucket), Lag(lambda: time.now, lambda: time.behind, 60.0))
    store.create("key", b"1")
    time.now, time.behind = time.now + 30, 10
    store.replace("key", b"longer")
    assert [stat.size_bytes for stat in store.list("")] == [1]
    time.behind = 0
    assert [stat.size_bytes for stat in store.list("")] == [6]


def test_a_seed_decides_who_moves_when() -> None:
    def moves(seed: int) -> list[tuple[str, float]]:
        steps, seen = Interleaving(seed), list[tuple[str, float]]()

        def work(actor: Actor) -> None:
            for _ in range(5):
                actor.wait_for_turn()
                seen.append((actor.name, steps.now))
            actor.sleep(3600)
            seen.append((actor.name, steps.now))

        for name in ("one", "two", "three"):
            steps.spawn(name, work)
        steps.run()
        return seen

    assert moves(1) == moves(1)
    assert moves(1) != moves(2)
    assert len(moves(1)) == 18
