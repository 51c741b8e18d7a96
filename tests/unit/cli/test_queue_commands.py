import json
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo_cli import main, queue_text
from modelrepo_runtime.jobs import Cause, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.order_settings import Pause
from modelrepo_runtime.queue.port import Offer, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reports import CreditReport, FailingVersion, LaneReport, QueueReport
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

LANE = LaneReport("m", "run", "gpu", "api", None, None, False, (), 1200, 0, 30.0, 0.5, 90.2, False)
QUIET = QueueReport(1000.0, "slo-share", (), (), (), ())


@pytest.fixture
def queue_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "queue.db"
    monkeypatch.setenv("MODELREPO_QUEUE", str(path))
    return path


def test_a_lane_is_a_line() -> None:
    text = queue_text.report(QueueReport(1000.0, "slo-share", (LANE,), (), (), ()))
    first, headings, row = text.splitlines()
    assert first == "1,200 jobs waiting; policy slo-share" and headings.startswith("MODEL")
    assert " ".join(row.split()) == "m run (gpu) api any version 1,200 30 s 50% about 1 min 30 s"


def test_what_holds_jobs_back_stands_below() -> None:
    failing = FailingVersion("m", "v2", "run", 940.0, 10, 9, 4, ("a", "b"))
    credit = CreditReport("a", "m", "v1", 3, None)
    pauses = (Pause(None, "free", 990.0), Pause("m", None, 990.0))
    text = queue_text.report(QueueReport(1000.0, "fifo", (), pauses, (failing,), (credit,)))
    assert "no job waits (policy fifo)" in text
    assert "paused since 10 s: model any, tier free; `modelrepo queue resume --tier free` ends it" in text
    assert "model m, tier any; `modelrepo queue resume m` ends it" in text
    assert "failing since 1 min: m@v2 at stage run, 9 of 10 attempts on 4 slots; tried in a, b now" in text
    assert "m@v1" in text and text.splitlines()[-1].split() == ["a", "m@v1", "3", "-"]


def test_an_empty_queue_says_so() -> None:
    assert queue_text.report(QUIET) == "no job waits (policy slo-share)"


def test_queue_alone_shows_it(queue_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(SqliteQueue(queue_path)) as queue:
        queue.submit(Submission("m", {}, (StageNeed("run"),), tier="api"))
        queue.pause("m")
    assert main.main(["queue", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (lane,) = shown["lanes"]
    assert (lane["model"], lane["tier"], lane["waiting"], lane["paused"], lane["wait_s"]) == ("m", "api", 1, True, None)
    assert shown["at"].endswith("Z") and shown["pauses"][0]["at"].endswith("Z")
    assert main.main(["queue", "show", "n"]) == 0
    assert capsys.readouterr().out.startswith("no job waits")


def test_a_failing_version_is_reset(queue_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(SqliteQueue(queue_path)) as queue:
        for number in range(12):
            session = queue.hello(WorkerInfo(f"w{number % 3}", "box", 1))
            queue.submit(Submission("m", {}, (StageNeed("run"),)))
            for claim in queue.claim(session, number, [Offer("0", "m", "v2", ("run",))]):
                queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.EXCEPTION))
    assert main.main(["queue", "show"]) == 0
    assert "m@v2 at stage run" in capsys.readouterr().out
    assert main.main(["queue", "reset", "m@v2"]) == 0
    assert main.main(["queue", "reset", "m@v2", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("m@v2 gets jobs again\n") and json.loads(out.partition("\n")[2])["was_failing"] is False
    assert main.main(["queue", "reset", "m"]) == 2


def test_explain_takes_a_job_or_a_worker(queue_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(SqliteQueue(queue_path)) as queue:
        job = queue.submit(Submission("m", {}, (StageNeed("run"),)))
        session = queue.hello(WorkerInfo("w", "box", 1, slots=("0",)))
        queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))
    assert main.main(["explain", job.id]) == 0
    assert "w/0" in capsys.readouterr().out
    assert main.main(["explain", "--worker", "w", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["slots"][0]["may_take"][0]["waiting"] == 1
    assert main.main(["explain", "--worker", "nope"]) == 3
    assert main.main(["explain"]) == 2
    assert main.main(["explain", job.id, "--worker", "w"]) == 2


def test_a_tier_that_refuses_late_jobs_says_so(queue_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert queue_path.parent.is_dir()
    assert main.main(["tiers", "set", "api", "--refuse-late"]) == 0
    assert main.main(["tiers"]) == 0
    assert "late jobs are refused" in capsys.readouterr().out
    assert main.main(["tiers", "set", "api", "--no-refuse-late", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refuse_late"] is False


def test_a_queue_is_not_migrated_through_a_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["queue", "migrate", "--queue", "http://127.0.0.1:1"]) == 2
    assert "name the database itself with --queue" in capsys.readouterr().err
