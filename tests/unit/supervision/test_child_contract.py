"""What a slot relies on of whatever it was given: one child, or a group of ranks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import Child, ChildGone, ChildState, RankGroup, shared_spawner, start_child
from modelrepo_runtime.supervision.descendants import read_process
from modelrepo_runtime.testing.children import a_request, a_spec

LIMIT_S = 30
WAITS = "def run(self, job):\n    import threading\n    job.progress(0.5)\n    threading.Event().wait()"
ASKS = "def run(self, job):\n    job.progress(0.5)\n    while True: job.check()"


@pytest.fixture(params=[1, 2])
def ranks(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def started(folder: Path, code: str, ranks: int, **changes: object) -> Child | RankGroup:
    child = start_child(a_spec(folder, code, ranks=ranks, **changes), shared_spawner())
    child.load(LIMIT_S)
    return child


def all_gone(child: Child | RankGroup) -> bool:
    found = [read_process(pid) for pid in child.pids]
    return not child.alive and all(process is None or process.zombie for process in found)


def test_it_is_loaded_runs_jobs_one_by_one_and_leaves_when_asked(tmp_path: Path, ranks: int) -> None:
    child = start_child(a_spec(tmp_path, "def run(self, job): return job.inputs", ranks=ranks), shared_spawner())
    assert set(child.load(LIMIT_S)) == {"spawn_s", "import_s", "load_s", "warmup_s"}
    for number in range(3):
        outcome = child.run(a_request(tmp_path, {"n": number}), timeout_s=LIMIT_S)
        assert (outcome.cause, outcome.result) == (Cause.SUCCEEDED, {"n": number})
        assert child.state is ChildState.READY and child.alive
    assert len(child.pids) == ranks and child.pid == child.pids[0]
    assert child.footprint().peak_bytes > 0
    report = child.stop()
    assert (report.step, report.gone) == ("drained", True) and child.stop() == report
    assert child.state is ChildState.STOPPING and all_gone(child)
    with pytest.raises(ChildGone):
        child.run(a_request(tmp_path), timeout_s=LIMIT_S)


def test_a_cancel_leaves_it_ready(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, ASKS, ranks)
    outcome = child.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=lambda *_: child.cancel())
    assert outcome.cause is Cause.CANCELLED and child.state is ChildState.READY
    child.stop()


def test_a_late_cancel_does_not_reach_the_next_job(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, "def run(self, job):\n    job.check()\n    return 1", ranks)
    assert child.run(a_request(tmp_path), timeout_s=LIMIT_S).result == 1
    child.cancel()
    assert child.run(a_request(tmp_path), timeout_s=LIMIT_S).result == 1
    child.stop()


def test_what_ignores_a_cancel_is_ended_after_the_grace(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, WAITS, ranks)
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=LIMIT_S, on_progress=lambda *_: child.cancel(), cancel_grace_s=0.1)
    assert outcome.cause is Cause.CANCELLED and all_gone(child)
    assert request.log_path.read_text().count("in run") >= ranks


def test_a_hang_is_ended_with_its_stacks(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, WAITS, ranks)
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=0.2)
    assert outcome.cause is Cause.HANG and all_gone(child)
    assert request.log_path.read_text().count("in run") >= ranks


def test_a_crash_is_one(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, "def run(self, job):\n    import os\n    os.abort()", ranks)
    outcome = child.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.CRASH and outcome.error is not None
    assert "SIGABRT" in outcome.error.message and all_gone(child)


def test_an_exception_costs_no_child(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, "def run(self, job):\n    if job.inputs: return 1\n    raise ValueError('no')", ranks)
    outcome = child.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.EXCEPTION and outcome.error is not None
    assert outcome.error.message == "ValueError: no"
    assert child.run(a_request(tmp_path, {"again": 1}), timeout_s=LIMIT_S).result == 1
    child.stop()


def test_a_batch_is_one_call(tmp_path: Path, ranks: int) -> None:
    code = "def run(self, jobs): return [job.inputs['a'] for job in jobs]"
    child = started(tmp_path, code, ranks, max_batch={"run": 3})
    outcomes = child.run_batch([a_request(tmp_path, {"a": number}) for number in range(3)], timeout_s=LIMIT_S)
    assert [outcome.result for outcome in outcomes] == [0, 1, 2]
    child.stop()


def test_stacks_on_demand_go_to_the_log_of_the_job(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, "def run(self, job):\n    job.progress(0)\n    return 'fine'", ranks)
    request = a_request(tmp_path)
    assert child.run(request, timeout_s=LIMIT_S, on_progress=lambda *_: child.dump_stacks()).result == "fine"
    child.stop()
    assert "most recent call first" in request.log_path.read_text()


def test_what_cannot_load_says_why_and_is_gone(tmp_path: Path, ranks: int) -> None:
    code = "def load(self, ctx): raise OSError('gone')\ndef run(self, job): pass"
    child = start_child(a_spec(tmp_path, code, ranks=ranks), shared_spawner())
    with pytest.raises(EntrypointFailed, match=r"demo@v1 cannot start: .*load failed: OSError: gone"):
        child.load(LIMIT_S)
    assert child.failure is not None and all_gone(child)


def test_stop_while_loading_ends_the_load(tmp_path: Path, ranks: int) -> None:
    code = "def load(self, ctx):\n    import threading\n    threading.Event().wait()\ndef run(self, job): pass"
    child = start_child(a_spec(tmp_path, code, ranks=ranks), shared_spawner())
    stopping = threading.Thread(target=child.stop)
    stopping.start()
    with pytest.raises(EntrypointFailed):
        child.load(LIMIT_S)
    stopping.join()
    assert all_gone(child)


def test_stop_during_a_job_preempts_it(tmp_path: Path, ranks: int) -> None:
    child = started(tmp_path, WAITS, ranks)
    stopping = threading.Thread(target=child.stop, args=(0.05,))
    outcome = child.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=lambda *_: stopping.start())
    stopping.join()
    assert outcome.cause is Cause.PREEMPTED and child.stop().step == "terminated"
