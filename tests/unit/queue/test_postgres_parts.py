"""The parts of the queue on PostgreSQL that need no server."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.queue.postgres.combining import Combiner
from modelrepo_runtime.queue.postgres.connecting import shown
from modelrepo_runtime.queue.postgres.feeding import Feeding
from modelrepo_runtime.queue.postgres.hints import BEFORE_ALL, LAG_S, STEPS, Hints
from modelrepo_runtime.queue.postgres.migrating import halves
from modelrepo_runtime.queue.postgres.news import News
from modelrepo_runtime.queue.postgres.statements import array, dumped, for_each, numbered, over_arrays
from modelrepo_runtime.queue.postgres.wire import LARGEST_PAYLOAD_BYTES, _payload
from modelrepo_runtime.testing.clock import FakeClock

TYPES = {("t", "a"): "bigint", ("t", "b"): "text"}


def test_placeholders_are_numbered_but_not_in_text_or_comments() -> None:
    assert numbered("select ?, '?', ? -- ?") == "select $1, '?', $2 -- ?"
    assert numbered("select ?2, ?1, ?2") == "select $2, $1, $2"


def test_plain_inserts_and_deletes_take_many_rows_as_arrays() -> None:
    insert = "-- why?\ninsert into t (a, b) values (?, ?) on conflict do nothing"
    assert over_arrays(insert, TYPES) == (
        "insert into t (a, b) select c1, c2 from unnest($1::bigint[], $2::text[]) as given (c1, c2)"
        " on conflict do nothing"
    )
    assert over_arrays("insert into t (a, b) values (?, ?)", TYPES, (1,)) == (
        "insert into t (a, b) select c1, $2::text from unnest($1::bigint[]) as given (c1)"
    )
    assert over_arrays("delete from t where a = ?", TYPES) == "delete from t where a = any($1::bigint[])"
    assert over_arrays("delete from t where a = ? and b = ?", TYPES) == (
        "delete from t using unnest($1::bigint[], $2::text[]) as given (a, b) where t.a = given.a and t.b = given.b"
    )


@pytest.mark.parametrize("text", ["insert into t (a) values (1)", "delete from t where a < ?", "update t set a = ?"])
def test_what_is_not_plain_is_run_row_by_row(text: str) -> None:
    assert over_arrays(text, TYPES) is None


def test_a_query_for_each_row_of_values_says_which_one_a_row_is_of() -> None:
    assert for_each("select a from t where a = ?1 limit ?2", [int, float]) == (
        "select found.*, given.n from unnest($1::bigint[], $2::double precision[]) with ordinality as given (v1, v2, n)"
        " cross join lateral (select a from t where a = given.v1 limit given.v2) found"
    )


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([1, 2.5, -3], "{1,2.5,-3}"),
        (['a"b', "c\\d", "", "e,f"], '{"a\\"b","c\\\\d","","e,f"}'),
        ([None, "null", 1], '{NULL,"null",1}'),
        ([True, False], "{1,0}"),
        ([], "{}"),
    ],
)
def test_lists_are_written_as_arrays(values: list[object], written: str) -> None:
    assert array(values) == written


def test_values_are_written_as_text_of_no_type() -> None:
    assert [dumped(value) for value in (None, "é", 7, 0.1, True)] == [None, "é".encode(), b"7", b"0.1", b"1"]
    with pytest.raises(TypeError):
        dumped(b"bytes")


def test_a_url_is_shown_without_its_password() -> None:
    assert shown("postgresql://me:secret@db:5433/queue") == "postgresql://me@db:5433/queue"
    assert shown("postgresql:///queue?host=/run&port=5433&password=secret") == "postgresql:///queue?host=/run&port=5433"
    with pytest.raises(InvalidInput):
        shown("postgresql://host/db?nonsense=1")


def test_migrations_are_numbered_without_a_gap_and_begin_with_their_pre_half(tmp_path: Path) -> None:
    for name in ("0001_first.pre.sql", "0002_second.post.sql", "0002_second.pre.sql"):
        (tmp_path / name).write_text("select 1")
    assert [half.key for half in halves(tmp_path)] == [(1, "pre"), (2, "pre"), (2, "post")]
    (tmp_path / "0004_fourth.pre.sql").write_text("select 1")
    with pytest.raises(ValueError, match="numbered"):
        halves(tmp_path)


def test_a_hint_is_what_was_seen_two_seconds_ago() -> None:
    clock = FakeClock()
    hints = Hints(clock)
    hints.saw(1, False, (10.0, 5))
    assert hints.start(1, False) == BEFORE_ALL
    clock.advance(1)
    hints.saw(1, False, (11.0, 6))
    clock.advance(1)
    hints.saw(1, False, (12.0, 7))
    assert hints.start(1, False) == (10.0, 5)
    assert hints.start(1, True) == hints.start(2, False) == BEFORE_ALL
    hints.saw(1, True, (3.5, -1))
    clock.advance(2)
    hints.saw(1, True, (4.5, -1))
    assert json.loads(hints.ages()) == {"1": 3.5}
    hints.lower(1, False, (9.0, 1))
    assert hints.start(1, False) == (9.0, 1)


def test_a_lane_begins_no_further_back_than_the_lag_and_a_step() -> None:
    clock = FakeClock(0.0)
    hints = Hints(clock)
    for tenth in range(100):
        hints.saw(1, False, (float(tenth), 0))
        begins = hints.start(1, False)[0]
        assert begins <= tenth - 10 * LAG_S
        assert tenth < 10 * LAG_S or tenth - begins <= 10 * (LAG_S + LAG_S / STEPS) + 1
        clock.advance(0.1)


def test_calls_that_wait_run_together_and_each_gets_its_answer() -> None:
    entered, go, ran = threading.Event(), threading.Event(), []

    def run(calls: Sequence[int]) -> list[int]:
        ran.append(tuple(calls))
        entered.set()
        assert go.wait(10)
        return [call * 2 for call in calls]

    combiner = Combiner(run)
    answers: dict[int, Sequence[int]] = {}

    def ask(number: int) -> None:
        answers[number] = combiner.ask("shard", [number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(combiner._shards["shard"].waiting) < 4:
        pass
    go.set()
    for thread in threads:
        thread.join(10)
    assert answers == {number: [number * 2] for number in range(5)}
    assert ran[0] == (0,) and sorted(ran[1]) == [1, 2, 3, 4] and len(ran) == 2


def test_an_error_that_one_call_caused_is_its_own() -> None:
    def run(calls: Sequence[int]) -> list[int]:
        if 13 in calls:
            raise InvalidInput("13")
        return list(calls)

    combiner = Combiner(run)
    assert combiner.ask("shard", [1]) == [1]
    with pytest.raises(InvalidInput):
        combiner.ask("shard", [13])

    def away(calls: Sequence[int]) -> list[int]:
        raise Unreachable("gone")

    with pytest.raises(Unreachable):
        Combiner(away).ask("shard", [1])


def test_news_reach_only_who_waits_for_them() -> None:
    news = News()
    waiter, other = news.waiter(["m"], ["j"], 1.0), news.waiter(["n"], [], 1.0)
    news.tell(["m"], [])
    assert waiter.wait(5) and not other.wait(0)
    news.tell([], ["j"])
    assert waiter.wait(5)
    waiter.close()
    waiter.close()
    news.tell(["m"], ["j"])
    assert not waiter.wait(0)
    news.tell_all()
    assert other.wait(5)


def test_a_notification_holds_what_fits_models_first() -> None:
    payload = _payload("me", ["m"], [f"job_{number:024}" for number in range(1000)])
    assert len(payload) <= LARGEST_PAYLOAD_BYTES
    told = json.loads(payload)
    assert told["from"] == "me" and told["models"] == ["m"] and len(told["jobs"]) > 200


def test_slots_that_are_prepared_for_are_counted_once_a_second_and_none_each_time() -> None:
    clock = FakeClock()
    feeding, counted = Feeding(clock, kept_s=1.0), []

    def count(slots: int) -> list[tuple[int, int]]:
        counted.append(slots)
        return [(slots, slots)]

    key = ("c", "m", "v1")
    for slots in (0, 0, 3, 4):
        found = feeding.rows(key, lambda slots=slots: count(slots))  # type: ignore[misc]
    assert (found, counted) == ([(3, 3)], [0, 0, 3])
    assert feeding.rows(("c", "m", "v2"), lambda: count(5)) == [(5, 5)]
    clock.advance(1.0)
    assert feeding.rows(key, lambda: count(6)) == [(6, 6)]
