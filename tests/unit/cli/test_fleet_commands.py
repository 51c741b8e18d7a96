"""`workers`, `events`, `top`, `status` and `jobs .. --where`, on a queue whose workers are played by the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import Forbidden, Unreachable
from modelrepo_cli.main import main
from modelrepo_runtime.jobs import Cause, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.fleet_events import FleetEvent
from modelrepo_runtime.queue.orders import OrderDone
from modelrepo_runtime.queue.port import Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue


@dataclass
class Desk:
    """An operator's command line before a small fleet."""

    queue: SqliteQueue
    path: Path
    capsys: pytest.CaptureFixture[str]
    heard: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    slots: dict[str, tuple[SlotReport, ...]] = field(default_factory=dict)
    seq: int = 0

    def run(self, *args: str, code: int = 0) -> str:
        """Run a command and return what it printed."""
        assert main([*args, "--queue", str(self.path)]) == code, self.capsys.readouterr().err
        self.printed = self.capsys.readouterr()
        return self.printed.out

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", code=code))

    def worker(self, name: str = "w", *slots: SlotReport) -> Session:
        slots = slots or (SlotReport("0", "open", "m", "v1", device="GPU 0"),)
        session = self.queue.hello(WorkerInfo(name, "box", 1, slots=tuple(slot.slot for slot in slots)))
        self.queue.beat(session, (), slots)
        self.slots[session.id] = slots
        return session

    def obey(self, session: Session, answer: str | None = None, *, refused: bool = False) -> None:
        orders = self.queue.beat(session, (), self.slots[session.id]).orders
        self.heard += [(order.verb, order.slot, order.argument) for order in orders]
        self.queue.confirm_orders(session, [OrderDone(order.id, answer, refused) for order in orders])

    def obeying(self, session: Session, answer: str | None = None, *, refused: bool = False) -> threading.Thread:
        """Play a worker that hears of its first order a little later."""

        def run() -> None:
            waiter = self.queue.waiter()
            while all(each.confirmed_at is not None for each in self.queue.orders()):
                waiter.wait(0.02)
            self.obey(session, answer, refused=refused)
            waiter.close()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def job(self, model: str = "m", tier: str = "free", **facts: Any) -> str:
        return self.queue.submit(Submission(model, {}, (StageNeed("run"),), tier, **facts)).id

    def fail(self, session: Session, job: str) -> None:
        self.seq += 1
        (claim,) = self.queue.claim(session, self.seq, [Offer("0", "m", "v1", ("run",))])
        assert claim.job_id == job
        self.queue.finish(session, job, claim.fence, Outcome(Cause.REJECTED))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "queue.db"
    with closing(SqliteQueue(path)) as queue:
        yield Desk(queue, path, capsys)


def test_workers_are_listed_and_shown_with_their_orders(desk: Desk) -> None:
    session = desk.worker("w", SlotReport("0", "open", "m", "v1"), SlotReport("1", "refused", "m", reason="no memory"))
    assert "1 of 2" in desk.run("workers") and "m@v1" in desk.printed.out
    desk.run("workers", "cordon", "w/0", "--reason", "a fan is loud")
    desk.obey(session)
    text = desk.run("workers", "show", "w")
    assert "no memory" in text and "a fan is loud" in text and "done" in text
    document = desk.json("workers", "list")
    assert [worker["info"]["name"] for worker in document["workers"]] == ["w"]
    assert document["orders"][0]["verb"] == "cordon"


def test_an_order_that_nobody_waits_for_is_written_and_no_more(desk: Desk) -> None:
    session = desk.worker()
    document = desk.json("workers", "drain", "w")
    assert document["converged"] is None and document["orders"][0]["confirmed_at"] is None
    desk.obey(session)
    assert desk.heard == [("drain", None, None)]


def test_a_wait_ends_when_all_is_done_and_with_6_when_its_time_is_over(desk: Desk) -> None:
    session = desk.worker("w", SlotReport("0", "open", "m", "v1", job_id="job_7"))
    desk.run("workers", "drain", "--all", "--wait", "100ms", code=6)
    assert "drain w (slot 0 runs job_7)" in desk.printed.err
    desk.obey(session)
    playing = desk.obeying(session)
    assert desk.json("workers", "drain", "--all", "--wait", "20s")["converged"] is True
    playing.join()


def test_a_refused_order_is_a_conflict_in_its_own_words(desk: Desk) -> None:
    playing = desk.obeying(desk.worker(), "this worker serves only m", refused=True)
    desk.run("workers", "assign", "w/0", "n@v2", "--wait", "20s", code=4)
    playing.join()
    assert "this worker serves only m" in desk.printed.err and desk.heard == [("assign", "0", "n@v2")]


def test_orders_go_to_all_or_to_the_slots_of_a_model(desk: Desk) -> None:
    first = desk.worker("a", SlotReport("0", "open", "m", "v1"), SlotReport("1", "open", "n", "v1"))
    second = desk.worker("b", SlotReport("0", "open", "n", "v1"))
    desk.run("workers", "restart", "--model", "n", "--max-unavailable", "1")
    desk.obey(first)
    desk.obey(second)
    assert desk.heard == [("restart", "1", "1"), ("restart", "0", "1")]
    desk.run("workers", "uncordon", "--all")
    assert [each.place for each in desk.queue.orders()][-2:] == ["a", "b"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("cordon",), 2, "name them, or say --all"),
        (("cordon", "w", "--all"), 2, "not both"),
        (("cordon", "nobody"), 3, "no such worker"),
        (("cordon", "w/9"), 3, "no such slot"),
        (("cordon", "w/"), 2, "WORKER/SLOT"),
        (("cordon", "--model", "n"), 2, "no live worker serves n"),
        (("restart", "w", "--max-unavailable", "many"), 2, "max_unavailable"),
        (("assign", "w", "m"), 2, "WORKER/SLOT"),
        (("show", "nobody"), 3, "no worker nobody"),
        (("logs", "nobody"), 3, "cannot fetch logs of nobody: no such worker"),
    ],
)
def test_orders_that_make_no_sense_change_nothing(desk: Desk, args: tuple[str, ...], code: int, words: str) -> None:
    desk.worker()
    desk.run("workers", *args, code=code)
    assert words in desk.printed.err and desk.queue.orders() == ()


def test_the_lines_of_a_worker_are_printed(desk: Desk) -> None:
    playing = desk.obeying(desk.worker(), "one\ntwo")
    assert desk.run("workers", "logs", "w", "--wait", "20s") == "one\ntwo\n"
    playing.join()
    assert desk.queue.orders() == () or desk.queue.orders()[0].confirmed_at is not None
    desk.run("workers", "logs", "w", "--wait", "50ms", code=6)
    assert not any(each.confirmed_at is None for each in desk.queue.orders()), "nobody waits for these lines any more"


def test_events_are_told_a_line_each(desk: Desk) -> None:
    desk.worker("w")
    desk.queue.note_event(FleetEvent("promoted", "m@v2 is active", "m", "v2"))
    desk.queue.note_event(FleetEvent("paused", "n is paused", "n"))
    told = [json.loads(line) for line in desk.run("events", "--json").splitlines()]
    assert [each["kind"] for each in told] == ["session_began", "slot_swapped", "promoted", "paused"]
    assert told[2]["model"] == "m" and told[2]["at"].endswith("Z")
    assert "promoted m@v2 · m@v2 is active" in desk.run("events", "--model", "m", "--since", "5m")
    assert "paused" not in desk.printed.out
    desk.run("events", "--kind", "webhook_given_up")
    assert "nothing happened" in desk.printed.err
    desk.run("events", "--kind", "promote", code=2)


def test_events_are_followed_until_interrupted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.queue.note_event(FleetEvent("paused", "first"))
    told = ["second", "third"]

    def happen(_: float) -> None:
        if not told:
            raise KeyboardInterrupt
        desk.queue.note_event(FleetEvent("paused", told.pop(0)))

    monkeypatch.setattr("modelrepo_cli.commands.events.time.sleep", happen)
    lines = desk.run("events", "--follow", "--json", code=130).splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["first", "second", "third"]


def test_events_are_followed_beyond_a_queue_that_is_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    news: list[tuple[FleetEvent, ...] | Exception] = [(FleetEvent("paused", "first", id=1),)]
    looks = iter([*news, Unreachable("gone"), Unreachable("gone"), Forbidden("revoked")])

    def look(*_: object, **__: object) -> tuple[FleetEvent, ...]:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(SqliteQueue, "fleet_events", look)
    monkeypatch.setattr("modelrepo_cli.verbs.ASK_AGAIN_S", 0.0)
    monkeypatch.setattr("modelrepo_cli.commands.events.POLL_S", 0.0)
    desk.run("events", "--follow", code=5)
    assert "first" in desk.printed.out
    assert desk.printed.err.splitlines() == ["gone; asking again", "error: revoked"]


def test_a_job_names_its_webhook_and_a_secret_that_is_nowhere_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELREPO_WEBHOOK_SECRET", raising=False)
    for args, words in (
        (["--webhook", "https://a.example/"], "needs a secret"),
        (["--webhook-secret-file", "secret"], "without --webhook"),
        (["--webhook", "ftp://a.example/", "--webhook-secret-file", "secret"], "https"),
    ):
        (desk.path.parent / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        desk.run("submit", "m", *args, code=2)
        assert words in desk.printed.err and "MfKQ" not in desk.printed.err


def test_status_shows_orders_and_what_went_wrong(desk: Desk) -> None:
    session = desk.worker("w")
    desk.queue.beat(session, (), (SlotReport("0", "cordoned", "m", "v1", reason="3 jobs failed"),))
    desk.run("workers", "cordon", "w")
    text = desk.run("status")
    assert "slot_cordoned" in text and "cordon  w" in text
    document = desk.json("status")
    assert document["orders"][0]["worker"] == "w" and document["events"][0]["kind"] == "slot_cordoned"


def test_top_is_shown_once_where_nobody_watches(desk: Desk) -> None:
    session = desk.worker("w")
    for _ in range(3):
        desk.job()
    desk.queue.claim(session, 1, [Offer("0", "m", "v1", ("run",))])
    text = desk.run("top")
    assert "2 waiting in 1 lanes" in text and "MODEL" in text and "PROGRESS" in text
    document = desk.json("top", "m")
    assert document["queue"]["lanes"][0]["waiting"] == 2 and len(document["running"]) == 1


def test_jobs_are_cancelled_and_deleted_by_what_they_have_in_common(desk: Desk) -> None:
    api, free, other = desk.job(tier="api"), desk.job(), desk.job("n")
    dry = desk.json("jobs", "cancel", "--where", "model=m", "--where", "tier=free", "--dry-run")
    assert dry["matching"] == [free] and dry["jobs"] == []
    assert desk.queue.get(free).status == "queued"
    assert "is cancelled" in desk.run("jobs", "cancel", "--where", "model=m", "--where", "tier=free")
    assert desk.queue.get(api).status == "queued"
    assert desk.json("jobs", "list", "--where", "status=cancelled")["jobs"][0]["id"] == free
    assert desk.json("jobs", "delete", "--where", "older_than=0s")["deleted"] == [free]
    assert {job["id"] for job in desk.json("jobs")["jobs"]} == {api, other}
    assert desk.json("jobs", "delete", "--where", "status=queued", "--where", "model=n")["deleted"] == [other]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("cancel",), "name them, or say --where"),
        (("cancel", "job_1", "--where", "model=m"), "not both"),
        (("cancel", "--where", "status=failed"), "cannot cancel jobs that are failed"),
        (("delete", "--where", "status=running"), "cannot delete jobs that are running"),
        (("list", "--where", "colour=red"), "colour"),
        (("list", "--where", "status=lost"), "'lost'"),
        (("list", "--where", "model=m", "--model", "n"), "two values of model"),
        (("retry", "--where", "older_than=soon"), "length of time"),
        (("retry", "--where", "status=running"), "only failed jobs"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(desk: Desk, args: tuple[str, ...], words: str) -> None:
    desk.job()
    desk.run("jobs", *args, code=2)
    assert words in desk.printed.err and len(desk.queue.list()) == 1
