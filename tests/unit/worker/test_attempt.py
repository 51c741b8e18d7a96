"""One attempt: what comes to the box, what leaves it, and what nobody is blamed for."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import InvalidInput, ObjectNotFound, Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Fence, JobError, OutputFile
from modelrepo_runtime.supervision.child import ChildGone
from modelrepo_runtime.supervision.spec import ChildOutcome, JobRequest, OutputPath
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.attempt import Attempts
from modelrepo_runtime.worker.ends import Ended
from modelrepo_runtime.worker.handover import Handovers
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.journal import Journal


class Child:
    def __init__(self, does: Callable[[JobRequest], ChildOutcome]) -> None:
        self._does = does
        self.cancelled = False
        self.seen: JobRequest | None = None

    def run(self, request: JobRequest, **_: Any) -> ChildOutcome:
        self.seen = request
        request.output_dir.mkdir(parents=True)
        return self._does(request)

    def run_batch(self, requests: Any, **_: Any) -> list[ChildOutcome]:
        return [self.run(request) for request in requests]

    def cancel(self, job_id: str | None = None) -> None:
        assert job_id in (None, "job_1")
        self.cancelled = True

    def stop(self, grace_s: float = 0.0) -> None:
        raise AssertionError("an attempt never stops its child")


class Store:
    """A JobStore in memory that fails as told."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {"in/photo.png": b"picture"}
        self.fails: dict[str, Exception] = {}

    def fetch(self, key: str, target: Path) -> None:
        if "fetch" in self.fails:
            raise self.fails["fetch"]
        if key not in self.kept:
            raise ObjectNotFound(f"{key} is not there", key=key)
        target.write_bytes(self.kept[key])

    def put_output(
        self, job_id: str, created_at: float, fence: Fence, name: str, path: Path, content_type: str | None = None
    ) -> OutputFile:
        if "output" in self.fails:
            raise self.fails["output"]
        self.kept[name] = path.read_bytes()
        return OutputFile(name, f"{job_id}/{fence}/{name}", path.stat().st_size, content_type or "")

    def put_log(self, job_id: str, created_at: float, fence: Fence, path: Path) -> str:
        if "log" in self.fails:
            raise self.fails["log"]
        self.kept["log"] = path.read_bytes()
        return "log"


def a_held(**files: str) -> Held:
    claim = Claim(
        job_id="job_1",
        fence=Fence(3, "ab"),
        model="m",
        version="v1",
        stage="run",
        stage_index=0,
        last_stage=True,
        attempt=1,
        inputs={},
        previous=None,
        tier="free",
        enqueued=0.0,
        timeout_s=5.0,
        created_at=0.0,
        files=files,
    )
    return Held(claim, 0.0)


def good(request: JobRequest) -> ChildOutcome:
    path = request.output_dir / "card"
    path.write_text("hello")
    request.log_path.write_text("said something")
    return ChildOutcome(Cause.SUCCEEDED, "result", (OutputPath("card", path, "text/plain"),), runtime_s=2.0)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.log = folder, Store(), io.StringIO()
        self.attempts = Attempts(
            folder / "attempts",
            Handovers(folder / "handovers", self.store),
            self.store,
            Timing.embedded(),
            Journal(self.log),
        )

    def run(self, does: Callable[[JobRequest], ChildOutcome] | Child = good, held: Held | None = None) -> Ended:
        child = does if isinstance(does, Child) else Child(does)
        types = {"card": "text/x-card"}
        ended = self.attempts.run(held or a_held(), child, slot="s0", digest="d1", content_types=types)
        assert not list((self.folder / "attempts").glob("*")), "files of the attempt are left"
        return ended


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_outputs_and_log_are_kept_before_the_queue_is_told(rig: Rig) -> None:
    ended = rig.run()
    assert ended.outcome is not None
    assert (ended.cause, ended.outcome.result, ended.outcome.runtime_s) == (Cause.SUCCEEDED, "result", 2.0)
    assert ended.outcome.outputs == (OutputFile("card", "job_1/3-ab/card", 5, "text/x-card"),)
    assert ended.outcome.log_key == "log"
    assert rig.store.kept["log"] == b"said something"


def test_inputs_come_as_files(rig: Rig) -> None:
    seen: list[bytes] = []

    def look(request: JobRequest) -> ChildOutcome:
        seen.append(request.files["photo"].read_bytes())
        return ChildOutcome(Cause.SUCCEEDED)

    rig.run(look, a_held(photo="in/photo.png"))
    assert seen == [b"picture"]


def test_an_input_that_is_gone_is_the_jobs_end(rig: Rig) -> None:
    ended = rig.run(held=a_held(photo="in/gone.png"))
    assert ended.cause is Cause.REJECTED
    assert ended.outcome is not None
    assert ended.outcome.error == JobError("input_missing", "in/gone.png is not there")


@pytest.mark.parametrize("error", [Unreachable("away"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("when", ["fetch", "output"])
def test_a_store_or_disk_that_fails_is_not_held_against_the_job(rig: Rig, error: Exception, when: str) -> None:
    rig.store.fails[when] = error
    assert rig.run(held=a_held(photo="in/photo.png")) == Ended(Cause.LOAD_FAILED)


def test_an_output_that_is_too_large_is_the_models_fault(rig: Rig) -> None:
    rig.store.fails["output"] = InvalidInput("output card has 6 GiB; the limit is 5 GiB")
    ended = rig.run()
    assert ended.outcome is not None
    assert ended.outcome.error == JobError("output_too_large", "output card has 6 GiB; the limit is 5 GiB")


def test_a_log_that_cannot_be_kept_costs_nothing_else(rig: Rig) -> None:
    rig.store.fails["log"] = Unreachable("away")
    ended = rig.run()
    assert ended.outcome is not None
    assert ended.outcome.log_key is None
    assert "log-not-kept" in rig.log.getvalue()


def test_outputs_of_an_attempt_that_failed_are_not_kept(rig: Rig) -> None:
    def fail(request: JobRequest) -> ChildOutcome:
        good(request)
        return ChildOutcome(Cause.EXCEPTION, error=JobError("exception", "no"))

    ended = rig.run(fail)
    assert ended.outcome is not None
    assert ended.outcome.outputs == ()
    assert ended.outcome.log_key == "log"


def test_a_child_that_was_gone_gives_the_job_back(rig: Rig) -> None:
    def gone(request: JobRequest) -> ChildOutcome:
        raise ChildGone("gone")

    assert rig.run(gone) == Ended(Cause.PREEMPTED)


def test_an_attempt_that_was_ended_before_it_began_does_not_begin(rig: Rig) -> None:
    for why, cause in [
        (End.CANCELLED, Cause.CANCELLED),
        (End.LOST, Cause.WORKER_LOST),
        (End.PREEMPTED, Cause.PREEMPTED),
    ]:
        held, child = a_held(), Child(good)
        held.end(why)
        assert rig.run(child, held).cause is cause
        assert child.seen is None


def test_an_attempt_that_is_ended_cancels_its_child(rig: Rig) -> None:
    held = a_held()

    def run(request: JobRequest) -> ChildOutcome:
        held.end(End.PREEMPTED)
        return ChildOutcome(Cause.CANCELLED)

    child = Child(run)
    assert rig.run(child, held) == Ended(Cause.PREEMPTED)
    assert child.cancelled


def test_work_that_was_done_all_the_same_counts_unless_the_lease_is_lost(rig: Rig) -> None:
    for why, outcome_is_told in [(End.PREEMPTED, True), (End.LOST, False)]:
        held = a_held()

        def run(request: JobRequest, held: Held = held, why: End = why) -> ChildOutcome:
            held.end(why)
            return good(request)

        assert (rig.run(run, held).outcome is not None) == outcome_is_told


def test_what_stages_hand_over_lives_as_long_as_the_job(rig: Rig) -> None:
    def hand_over(request: JobRequest) -> ChildOutcome:
        request.handover_dir.mkdir(parents=True, exist_ok=True)
        (request.handover_dir / "latents").touch()
        return ChildOutcome(Cause.SUCCEEDED)

    rig.run(hand_over)
    assert (rig.folder / "handovers" / "job_1" / "latents").exists()
    rig.attempts.forget_job(a_held().claim)
    assert not (rig.folder / "handovers" / "job_1").exists()
