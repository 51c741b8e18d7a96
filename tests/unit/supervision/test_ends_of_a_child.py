"""Cancel, time-outs, crashes and the ladder that ends a child."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import Child, ChildGone, ChildState, end_recorded_group, shared_spawner
from modelrepo_runtime.supervision.descendants import read_process, wait_gone
from modelrepo_runtime.testing.children import a_request, a_spec, started

LOOP = """
def run(self, job):
    import time
    job.progress(0.5)
    while True:
        time.sleep(0.005)
        job.check()
"""
DEAF = """
def run(self, job):
    import threading
    job.progress(0.5)
    threading.Event().wait()
"""


def count_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or process.zombie


def test_cancel_raises_in_the_model_and_leaves_the_child_ready(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, LOOP))
    try:
        outcome = child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda *_: child.cancel())
        assert outcome.cause is Cause.CANCELLED
        assert child.alive and child.state is ChildState.READY
    finally:
        child.stop()


def test_a_model_that_ignores_cancel_is_killed_after_the_grace_with_its_stacks_in_the_log(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, DEAF))
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=20, on_progress=lambda *_: child.cancel(), cancel_grace_s=0.1)
    assert outcome.cause is Cause.CANCELLED
    assert "model.py" in request.log_path.read_text()
    assert not child.alive and is_gone(child.pid)


def test_a_late_cancel_does_not_reach_the_next_job(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job):\n    job.check()\n    return 1"))
    try:
        assert child.run(a_request(tmp_path), timeout_s=10).result == 1
        child.cancel()
        assert child.run(a_request(tmp_path), timeout_s=10).result == 1
    finally:
        child.stop()


def test_a_time_out_is_a_hang_and_writes_all_stacks(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, DEAF))
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=0.2)
    assert outcome.cause is Cause.HANG
    assert outcome.error is not None and "not done after 0.2 s" in outcome.error.message
    assert "most recent call first" in request.log_path.read_text()
    assert not child.alive and is_gone(child.pid)


def test_stacks_on_demand_go_to_the_log_of_the_job_that_runs_on(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job):\n    job.progress(0)\n    return 'fine'"))
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=10, on_progress=lambda *_: child.dump_stacks())
    child.stop()
    assert outcome.result == "fine"
    assert "most recent call first" in request.log_path.read_text()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.abort()", "killed by SIGABRT"),
        ("os._exit(0)", "exited with 0"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_a_process_that_ends_without_an_answer_is_a_crash(tmp_path: Path, body: str, words: str) -> None:
    child = started(a_spec(tmp_path, f"def run(self, job):\n    import os\n    print('last words')\n    {body}"))
    request = a_request(tmp_path)
    outcome = child.run(request, timeout_s=20)
    assert outcome.cause is Cause.CRASH
    assert outcome.error is not None and words in outcome.error.message
    assert request.log_path.read_text().startswith("last words\n")
    assert child.state is ChildState.STOPPING and not child.alive
    with pytest.raises(ChildGone):
        child.run(a_request(tmp_path), timeout_s=1)


def test_a_child_that_died_between_jobs_costs_no_job(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): return 1"))
    os.kill(child.pid, signal.SIGKILL)
    wait_gone([child.pid], 10)
    with pytest.raises(ChildGone):
        child.run(a_request(tmp_path), timeout_s=10)
    assert not child.alive


def test_stop_during_a_job_lets_it_finish_within_the_grace(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"""
        def run(self, job):
            import os, time
            job.progress(0)
            while not os.path.exists({str(go)!r}):
                time.sleep(0.005)
            return "whole"
    """
    child = started(a_spec(tmp_path, code))
    stopping = threading.Thread(target=child.stop, args=(20,))

    def stop_now(*_: object) -> None:
        stopping.start()
        while child.state is not ChildState.DRAINING:
            pass
        go.touch()

    outcome = child.run(a_request(tmp_path), timeout_s=20, on_progress=stop_now)
    stopping.join()
    assert outcome.result == "whole"
    assert child.stop().step == "drained"


def test_a_thread_that_a_job_has_left_behind_does_not_hold_up_the_end(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            import atexit, threading
            threading.Thread(target=threading.Event().wait).start()
            atexit.register(print, "said good-bye")
    """
    child = started(a_spec(tmp_path, code))
    assert child.run(a_request(tmp_path), timeout_s=10).cause is Cause.SUCCEEDED
    assert child.stop(5).step == "drained"
    assert "said good-bye" in child.log_path.read_text()


def test_stop_during_a_job_that_goes_on_preempts_it(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, DEAF))
    stopping = threading.Thread(target=child.stop, args=(0.05,))
    outcome = child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda *_: stopping.start())
    stopping.join()
    assert outcome.cause is Cause.PREEMPTED
    assert child.stop().step == "terminated"


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = """
        def load(self, ctx):
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def run(self, job):
            import threading
            job.progress(0)
            threading.Event().wait()
    """
    child = started(a_spec(tmp_path, code))
    stopping = threading.Thread(target=child.stop, args=(0.05,), kwargs={"terminate_s": 0.1})
    child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda *_: stopping.start())
    stopping.join()
    report = child.stop()
    assert (report.step, report.gone) == ("killed", True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def load(self, ctx): raise OSError('gone')\ndef run(self, job): pass", "load failed: OSError: gone"),
        ("def warmup(self, ctx): 1 / 0\ndef run(self, job): pass", "warmup failed: ZeroDivisionError"),
        ("def run(self): pass", "import failed: Unfit: entrypoint model:Model: run(self) does not take exactly (job)"),
        ("def other(self, job): pass", "it has no method run(job)"),
        ("async def run(self, job): pass", "run is async"),
        ("def __init__(self, size): pass\ndef run(self, job): 1", "Model(size) cannot be called without arguments"),
        ("import os; os._exit(7)", "it ended without an answer (its process exited with 7)"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_start_says_why(tmp_path: Path, code: str, words: str) -> None:
    child = Child.start(a_spec(tmp_path, code), shared_spawner())
    with pytest.raises(EntrypointFailed) as caught:
        child.load(20)
    assert words in str(caught.value)
    assert "demo@v1 cannot start" in str(caught.value)
    assert not child.alive and is_gone(child.pid)


def test_a_load_that_hangs_is_ended_with_its_stacks(tmp_path: Path) -> None:
    code = "def load(self, ctx):\n    import threading\n    threading.Event().wait()\ndef run(self, job): pass"
    child = Child.start(a_spec(tmp_path, code), shared_spawner())
    with pytest.raises(EntrypointFailed, match=r"not ready after 0\.5 s") as caught:
        child.load(0.5)
    assert "model.py" in caught.value.log
    assert is_gone(child.pid)


def test_stop_while_loading_ends_the_load(tmp_path: Path) -> None:
    code = """
        def load(self, ctx):
            import threading
            print("here", flush=True)
            threading.Event().wait()
        def run(self, job): pass
    """
    child = Child.start(a_spec(tmp_path, code), shared_spawner())
    stopping = threading.Thread(target=child.stop)
    stopping.start()
    with pytest.raises(EntrypointFailed):
        child.load(20)
    stopping.join()
    assert is_gone(child.pid)


def test_stop_twice_and_stop_before_load_are_legal(tmp_path: Path) -> None:
    child = Child.start(a_spec(tmp_path, "def run(self, job): pass"), shared_spawner())
    assert child.stop() == child.stop()


def test_nothing_is_left_open_when_children_come_and_go(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, "def run(self, job): pass")
    started(spec).stop()
    descriptors, threads = count_open(), threading.active_count()
    for _ in range(5):
        child = started(spec)
        child.run(a_request(tmp_path), timeout_s=10)
        child.stop()
    assert (count_open(), threading.active_count()) == (descriptors, threads)


def test_a_lock_is_held_until_the_childs_last_process_is_gone(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "slot.lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    child = started(a_spec(tmp_path, "def run(self, job): pass", keep_open_fds=(lock,)))
    os.close(lock)
    other = os.open(path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.stop()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_recorded_group_is_left_alone_once_the_child_has_ended(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, "def run(self, job): pass")
    child = started(spec)
    child.stop()
    assert end_recorded_group(spec.folder) == ()


def test_a_code_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, "def run(self, job): pass")
    child = Child.start(replace(spec, code_roots=(tmp_path / "gone",)), shared_spawner())
    with pytest.raises(EntrypointFailed, match=r"code: .*/gone is no folder"):
        child.load(20)
