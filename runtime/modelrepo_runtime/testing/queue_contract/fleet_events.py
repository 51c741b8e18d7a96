"""What happened to the fleet, as the queue saw it and as others noted it."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.fleet_events import FleetEvent, Happened
from modelrepo_runtime.queue.orders import OrderDraft, Verb
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench


def kinds(bench: Bench) -> list[str]:
    return [event.kind for event in bench.queue.fleet_events()]


class FleetEventContract:
    def test_a_workers_life_is_told(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker("w", open_for=None)
        bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))
        bench.claim_one(session)
        number = bench.queue.beats()[session.id]
        bench.queue.expire_session(session.id, number)
        bench.queue.goodbye(session)
        assert kinds(bench) == [
            Happened.SESSION_BEGAN,
            Happened.SLOT_SWAPPED,
            Happened.SESSION_LOST,
            Happened.SESSION_ENDED,
        ]
        assert all(event.worker == "w" for event in bench.queue.fleet_events())

    def test_changes_of_slots_are_told_once(self, bench: Bench) -> None:
        session = bench.queue.hello(WorkerInfo("w", "box", 1, slots=("0",)))
        for report in (
            SlotReport("0", "open", "m", "v1"),
            SlotReport("0", "open", "m", "v1", job_id="job_1"),
            SlotReport("0", "open", "m", "v2"),
            SlotReport("0", "cordoned", "m", "v2", reason="3 jobs failed"),
            SlotReport("0", "cordoned", "m", "v2", reason="3 jobs failed"),
            SlotReport("0", "refused", "m", "v2", reason="v3 does not load"),
            SlotReport("0", "open", "m", "v2"),
        ):
            bench.queue.beat(session, (), (report,))
        events = bench.queue.fleet_events()
        assert [(event.kind, event.version) for event in events][1:] == [
            (Happened.SLOT_SWAPPED, "v1"),
            (Happened.SLOT_SWAPPED, "v2"),
            (Happened.SLOT_CORDONED, "v2"),
            (Happened.SLOT_REFUSED, "v2"),
            (Happened.SLOT_OPENED, "v2"),
        ]
        assert "m@v2, m@v1 before" in events[2].text and "3 jobs failed" in events[3].text

    def test_events_are_found_by_time_model_kind_and_place(self, bench: Bench) -> None:
        bench.queue.note_event(FleetEvent("promoted", "m@v1 is active", "m", "v1"))
        bench.clock.advance(100)
        bench.queue.note_event(FleetEvent("paused", "n takes no jobs", "n"))
        first, second = bench.queue.fleet_events()
        assert (first.model, first.version, second.at - first.at) == ("m", "v1", 100.0)
        assert bench.queue.fleet_events(since_s=50) == (second,) == bench.queue.fleet_events(after=first.id)
        assert bench.queue.fleet_events(model="m") == (first,) == bench.queue.fleet_events(kind="promoted")
        assert bench.queue.fleet_events(limit=1) == (second,)

    def test_events_are_forgotten_after_a_month(self, bench: Bench) -> None:
        bench.queue.note_event(FleetEvent("paused", "old"))
        bench.clock.advance(31 * 86_400)
        bench.queue.note_event(FleetEvent("resumed", "new"))
        bench.queue.tend()
        assert kinds(bench) == ["resumed"]

    def test_an_order_is_an_event(self, bench: Bench) -> None:
        bench.worker("w", open_for=None)
        bench.queue.give_orders([OrderDraft("w", Verb.CORDON, "0", reason="a fan is loud")], by="ann")
        event = bench.queue.fleet_events()[-1]
        assert (event.kind, event.worker, event.slot) == (Happened.ORDER_GIVEN, "w", "0")
        assert event.text == "cordon w/0 was ordered by ann: a fan is loud"

    def test_what_operators_set_is_told(self, bench: Bench) -> None:
        bench.queue.set_tier("api", slo_s=30)
        bench.queue.set_default_tier("api")
        bench.queue.see_active("m", 0, {"target": {"version": "v2"}})
        bench.queue.pause("m")
        bench.queue.resume("m")
        told = [(event.kind, event.model) for event in bench.queue.fleet_events()]
        assert told == [
            (Happened.TIER_SET, None),
            (Happened.TIER_SET, None),
            (Happened.PROMOTED, "m"),
            (Happened.PAUSED, "m"),
            (Happened.RESUMED, "m"),
        ]

    def test_a_kind_that_there_is_not_is_refused_with_the_nearest(self, bench: Bench) -> None:
        with pytest.raises(InvalidInput, match="did you mean slot_cordoned"):
            bench.queue.fleet_events(kind="slot_cordon")
