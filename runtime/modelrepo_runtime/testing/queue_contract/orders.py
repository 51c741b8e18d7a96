"""Orders to workers: given, repeated until confirmed, standing ones again to whoever comes back."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput, StaleSession, WorkerNotFound
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.orders import Order, OrderDone, OrderDraft, Verb
from modelrepo_runtime.queue.port import Session, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench


def begin(bench: Bench, name: str = "w", slots: tuple[str, ...] = ("0", "1")) -> Session:
    return bench.queue.hello(WorkerInfo(name, "box", 1, slots=slots))


def heard(bench: Bench, session: Session) -> list[Order]:
    return list(bench.queue.beat(session, (), ()).orders)


def told(bench: Bench, session: Session) -> list[tuple[str, str | None]]:
    return [(order.verb, order.slot) for order in heard(bench, session)]


def obey(bench: Bench, session: Session) -> None:
    bench.queue.confirm_orders(session, [OrderDone(order.id) for order in heard(bench, session)])


class WorkerOrderContract:
    def test_an_order_is_repeated_with_every_beat_until_it_is_confirmed(self, bench: Bench) -> None:
        session = begin(bench)
        assert heard(bench, session) == []
        (given,) = bench.queue.give_orders([OrderDraft("w", Verb.RESTART, "0", "10%")], by="ann")
        for _ in range(2):
            assert heard(bench, session) == [Order(given.order.id, "restart", "0", "10%")]
        bench.queue.confirm_orders(session, [OrderDone(given.order.id)])
        assert heard(bench, session) == []
        (shown,) = bench.queue.orders("w")
        assert (shown.by, shown.place, shown.refused) == ("ann", "w/0", False) and shown.confirmed_at is not None

    def test_orders_reach_only_the_worker_that_they_name(self, bench: Bench) -> None:
        mine, other = begin(bench, "w"), begin(bench, "v")
        bench.queue.give_orders([OrderDraft("w", Verb.CORDON)])
        assert told(bench, other) == [] and told(bench, mine) == [("cordon", None)]
        assert bench.queue.orders("v") == () and len(bench.queue.orders()) == 1

    def test_a_worker_that_starts_again_gets_its_cordon_again_but_no_restart(self, bench: Bench) -> None:
        session = begin(bench)
        bench.queue.give_orders([OrderDraft("w", Verb.DRAIN, "1"), OrderDraft("w", Verb.RESTART)])
        obey(bench, session)
        assert told(bench, session) == []
        bench.queue.goodbye(session)
        assert told(bench, begin(bench)) == [("drain", "1")]

    def test_a_later_order_takes_the_place_of_what_it_contradicts(self, bench: Bench) -> None:
        session = begin(bench)
        bench.queue.give_orders([OrderDraft("w", Verb.CORDON, "0"), OrderDraft("w", Verb.ASSIGN, "0", "m@v1")])
        bench.queue.give_orders([OrderDraft("w", Verb.UNCORDON), OrderDraft("w", Verb.ASSIGN, "0", "n")])
        assert told(bench, session) == [("uncordon", None), ("assign", "0")]
        obey(bench, session)
        assert told(bench, begin(bench)) == [("assign", "0")]

    def test_opening_one_slot_of_a_cordoned_worker_leaves_the_others_shut(self, bench: Bench) -> None:
        session = begin(bench, slots=("0", "1", "2"))
        bench.queue.give_orders([OrderDraft("w", Verb.CORDON, reason="hot")])
        obey(bench, session)
        bench.queue.give_orders([OrderDraft("w", Verb.UNCORDON, "1")])
        obey(bench, session)
        again = begin(bench, slots=("0", "1", "2"))
        orders = heard(bench, again)
        assert [(order.verb, order.slot, order.reason) for order in orders] == [
            ("cordon", "0", "hot"),
            ("cordon", "2", "hot"),
        ]

    def test_a_refused_order_says_why_and_is_not_repeated(self, bench: Bench) -> None:
        session = begin(bench)
        (given,) = bench.queue.give_orders([OrderDraft("w", Verb.ASSIGN, "0", "secret-model")])
        bench.queue.confirm_orders(session, [OrderDone(given.order.id, "serves only m", refused=True)])
        assert told(bench, session) == [] and told(bench, begin(bench)) == []
        (shown,) = bench.queue.orders()
        assert shown.refused and shown.answer == "serves only m"
        (event,) = bench.queue.fleet_events(kind=Happened.ORDER_REFUSED)
        assert (event.worker, event.slot) == ("w", "0")
        assert event.text == "w/0 refused to assign: serves only m"

    @pytest.mark.parametrize("share", ["0", "0%", "0.0", "200%", "none"])
    def test_a_restart_by_turns_that_nothing_could_take_is_refused(self, bench: Bench, share: str) -> None:
        begin(bench)
        with pytest.raises(InvalidInput, match="max_unavailable"):
            bench.queue.give_orders([OrderDraft("w", Verb.RESTART, None, share)])
        assert bench.queue.orders() == ()

    def test_an_order_that_stood_and_is_refused_later_stands_no_longer(self, bench: Bench) -> None:
        session = begin(bench)
        (given,) = bench.queue.give_orders([OrderDraft("w", Verb.ASSIGN, "0", "m@v2")])
        bench.queue.confirm_orders(session, [OrderDone(given.order.id)])
        later = begin(bench)
        assert told(bench, later) == [("assign", "0")]
        for _ in range(2):  # an answer that was lost is given again
            bench.queue.confirm_orders(later, [OrderDone(given.order.id, "v2 is deleted", refused=True)])
        (shown,) = bench.queue.orders("w")
        assert shown.refused and shown.answer == "v2 is deleted"
        (event,) = bench.queue.fleet_events(kind=Happened.ORDER_REFUSED)
        assert (event.worker, event.slot) == ("w", "0")
        assert told(bench, begin(bench)) == [] and bench.queue.take_back_orders([given.order.id]) == 0
        bench.clock.advance(25 * 3600)
        bench.queue.tend()
        assert bench.queue.orders("w") == ()

    def test_the_lines_of_a_worker_come_with_the_confirmation(self, bench: Bench) -> None:
        session = begin(bench)
        (given,) = bench.queue.give_orders([OrderDraft("w", Verb.LOGS)])
        bench.queue.confirm_orders(session, [OrderDone(given.order.id, "one\ntwo")])
        assert bench.queue.orders("w")[0].answer == "one\ntwo"

    def test_orders_are_given_all_or_none_and_only_to_workers_that_are_known(self, bench: Bench) -> None:
        begin(bench)
        for drafts, error in (
            ([OrderDraft("w", Verb.CORDON), OrderDraft("gone", Verb.CORDON)], WorkerNotFound),
            ([OrderDraft("w", Verb.CORDON, "7")], WorkerNotFound),
            ([OrderDraft("w", Verb.ASSIGN, None, "m")], InvalidInput),
            ([OrderDraft("w", Verb.RESTART, None, "some")], InvalidInput),
            ([OrderDraft("w", Verb.LOGS, "0")], InvalidInput),
        ):
            with pytest.raises(error):
                bench.queue.give_orders(drafts)
        assert bench.queue.orders() == ()

    def test_an_order_that_waits_or_stands_can_be_taken_back(self, bench: Bench) -> None:
        session = begin(bench)
        given = bench.queue.give_orders([OrderDraft("w", Verb.CORDON, "0"), OrderDraft("w", Verb.LOGS)])
        ids = [each.order.id for each in given]
        assert bench.queue.take_back_orders(ids) == 2 and bench.queue.take_back_orders(ids) == 0
        assert told(bench, session) == []

    def test_a_session_that_has_ended_confirms_nothing(self, bench: Bench) -> None:
        session = begin(bench)
        (given,) = bench.queue.give_orders([OrderDraft("w", Verb.CORDON)])
        bench.queue.goodbye(session)
        with pytest.raises(StaleSession):
            bench.queue.confirm_orders(session, [OrderDone(given.order.id)])

    def test_what_is_done_once_is_forgotten_after_a_day_and_a_cordon_is_not(self, bench: Bench) -> None:
        session = begin(bench)
        bench.queue.give_orders([OrderDraft("w", Verb.CORDON), OrderDraft("w", Verb.RESTART)])
        obey(bench, session)
        bench.clock.advance(25 * 3600)
        bench.queue.tend()
        assert [each.order.verb for each in bench.queue.orders()] == ["cordon"]
