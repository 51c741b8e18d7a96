"""Prune beside pushes, pulls, copies, promotions and deletions, with late listings, wrong clocks, stalls and kills.

No published version ever lacks anything, whatever the order of the operations, and garbage goes in the end. That these
tests can fail is shown by breaking the protocol, one rule after the other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import pytest

from modelrepo.maintenance import references, sweeping
from modelrepo.publication import delivery
from modelrepo.publication.delivery import Delivery
from modelrepo.publication.leases import PendingPrunes
from modelrepo.testing.interleaving import HOUR
from tests.acceptance.races import InlineWindow, Race, Violation

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
DAYS, DUELS, OVERSLEPT = (1000, 5000, 500) if FULL else (20, 120, 20)
UNTIL_BROKEN = 3000
"""Schedules that a broken protocol may pass; each rule that was left out showed within a hundred or so."""

pytestmark = pytest.mark.timeout(3600 if FULL else 300)

Break = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def one_thing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (delivery, references, sweeping):
        monkeypatch.setattr(module, "Window", InlineWindow)


def test_days_of_everything_leave_every_version_whole_and_no_garbage() -> None:
    done: Counter[str] = Counter()
    for seed in range(DAYS):
        race = Race(seed)
        run(race.run, seed)
        left_whole_and_clean(race, seed)
        done.update(race.done, objects=race.world.deleted_objects, bundles=race.world.deleted_bundles)
    # A schedule in which nothing happens shows nothing.
    assert min(done[what] for what in ("push", "copy", "promote", "delete", "pull", "prune")) > DAYS, done
    assert min(done["objects"], done["bundles"]) > DAYS / 6, done


def test_writers_and_sweepers_at_one_moment_leave_every_version_whole() -> None:
    for seed in range(DUELS):
        race = Race(seed)
        run(race.duel, seed)
        left_whole_and_clean(race, seed)


def test_a_push_that_slept_past_its_lease_makes_its_version_whole() -> None:
    for seed in range(OVERSLEPT):
        race = overslept(seed)
        assert not race.world.lacking(), f"schedule {seed}"


def run(schedule: Callable[[], None], seed: int) -> None:
    try:
        schedule()
    except Violation as violation:
        raise AssertionError(f"schedule {seed}: {violation}") from violation


def left_whole_and_clean(race: Race, seed: int) -> None:
    race.clean()
    assert not race.world.lacking(), f"schedule {seed}"
    assert not race.world.garbage(), f"schedule {seed}"


def overslept(seed: int) -> Race:
    race = Race(seed, strict=False, longest_wait_s=200 * HOUR, kills=False)
    race.oversleep()
    return race


def ignore_leases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(references, "counting_leases", lambda _store, *, now: [])


def ignore_cancellations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweeping, "_decide", lambda *_: None)


def ignore_a_sweep_under_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PendingPrunes, "_await_sweep", lambda *_: None)


def hold_no_environments(patch: pytest.MonkeyPatch) -> None:
    bring_new = Delivery._bring_new
    patch.setattr(
        Delivery,
        "_bring_new",
        lambda self, objects, origins, _environments, at_hand: bring_new(self, objects, origins, (), at_hand),
    )


def call_off_only_for_what_is_there(patch: pytest.MonkeyPatch) -> None:
    def bring(
        self: Delivery, objects: Mapping[str, int], environments: Collection[str], at_hand: dict[str, bytes]
    ) -> None:
        there = objects.keys() - delivery.missing_objects(self._store, objects)
        skipped = there - PendingPrunes(self._store, self._clock).release({*there, *environments})
        self._skipped |= skipped
        self._settle(sum(objects[digest] for digest in skipped))
        self._send(objects.keys() - skipped, at_hand)

    patch.setattr(Delivery, "_bring", bring)


BROKEN_IN_A_DUEL: list[Break] = [
    ignore_cancellations,
    ignore_a_sweep_under_way,
    hold_no_environments,
    call_off_only_for_what_is_there,
]


@pytest.mark.parametrize("broken", BROKEN_IN_A_DUEL)
def test_a_duel_shows_which_rule_is_missing(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    with pytest.raises(Violation):
        for seed in range(UNTIL_BROKEN):
            Race(seed).duel()


def test_days_without_a_look_at_leases_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_leases(monkeypatch)
    with pytest.raises(Violation):
        for seed in range(UNTIL_BROKEN):
            Race(seed).run()


def look_no_more(_delivery: Delivery, _documents: Mapping[str, bytes]) -> None:
    """Take what was skipped to be there for ever."""


def look_without_a_lease(self: Delivery, documents: Mapping[str, bytes]) -> None:
    self._send(delivery.missing_objects(self._store, {digest: self._objects[digest] for digest in self._skipped}), {})
    for key, data in documents.items():
        self._store.create(key, data)


@pytest.mark.parametrize("look_again", [look_no_more, look_without_a_lease])
def test_a_push_that_slept_and_did_not_look_again_well_enough_shows_it(
    look_again: Callable[[Delivery, Mapping[str, bytes]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "_look_again", look_again)
    assert any(overslept(seed).world.lacking() for seed in range(UNTIL_BROKEN))
