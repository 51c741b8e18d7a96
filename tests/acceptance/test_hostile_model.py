"""Model code that does its worst: it costs that attempt only, and the slot is usable after.

Each scenario replaces the child in the way that a slot does, and runs a plain job in the next one.
MODELREPO_ACCEPTANCE=full runs every scenario several times over.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import Child, ChildGone, ChildOutcome, JobRequest, descendants, shared_spawner
from modelrepo_runtime.supervision.logs import LOG_LIMIT_BYTES
from modelrepo_runtime.testing.children import a_request, a_spec, started

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
ROUNDS = 5 if FULL else 1
PRINTED_BYTES = 1 << 30 if FULL else 256 << 20
MEMORY_GROWTH_LIMIT_BYTES = 64 << 20

HOSTILE = """
def run(self, job):
    import ctypes, json, os, signal, struct, sys, threading, time
    do = job.inputs["do"]
    if do == "nothing":
        return "fine"
    getattr(self, do)(job)
    return "came back"

def _every_descriptor(self):
    import os
    return sorted((int(name) for name in os.listdir("/proc/self/fd")), reverse=True)

def _frame(self, **message):
    import json, struct
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body

def _write_everywhere(self, data):
    import os
    for descriptor in self._every_descriptor():
        try:
            os.write(descriptor, data)
        except OSError:
            pass

def forge_done(self, job):
    for nonce in ("", "0" * 16, None):
        self._write_everywhere(self._frame(t="done", n=nonce, result="forged"))

def forge_length(self, job):
    self._write_everywhere(b"\\xff\\xff\\xff\\xff")

def print_rubbish(self, job):
    import os
    self._write_everywhere(os.urandom(100_000))

def print_frames(self, job):
    import os, sys
    for _ in range(1000):
        os.write(1, self._frame(t="done", n="", result="forged"))
        sys.stderr.write("{}")

def close_all(self, job):
    import os
    os.closerange(0, 1 << 16)

def close_output(self, job):
    import os, sys
    sys.stdout.close()
    os.close(1)
    os.close(2)

def fork_that_keeps_everything(self, job):
    import os, time
    if os.fork() == 0:
        while True:
            time.sleep(60)

def fork_and_crash(self, job):
    import os
    self.fork_that_keeps_everything(job)
    os.abort()

def daemon(self, job):
    import os, subprocess, sys
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(sleep, start_new_session=True, env={}, close_fds=False)

def daemon_and_crash(self, job):
    import os
    self.daemon(job)
    os._exit(0)

def fork_bomb_of_fifty(self, job):
    import os, signal, time
    for _ in range(50):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)

def ignore_signals_and_hang(self, job):
    import signal, threading
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Event().wait()

def segfault(self, job):
    import ctypes
    ctypes.string_at(0)

def hang_in_c(self, job):
    import ctypes
    ctypes.PyDLL(None).sleep(600)

def hang_in_c_with_the_interpreter_free(self, job):
    import ctypes
    ctypes.CDLL(None).sleep(600)

def stop_itself(self, job):
    import os, signal
    os.kill(os.getpid(), signal.SIGSTOP)

def swallow_everything(self, job):
    while True:
        try:
            job.progress(0.1)
        except BaseException:
            pass

def progress_for_ever(self, job):
    while True:
        job.progress(0.1, "x" * 1000)

def deep_result(self, job):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep

def print_much(self, job):
    import os
    line = b"x" * 1023 + b"\\n"
    block = line * 1024
    for _ in range(job.inputs["blocks"]):
        os.write(1, block)

def exit_cleanly(self, job):
    import os
    os._exit(0)

def kill_the_group(self, job):
    import os, signal
    os.killpg(0, signal.SIGKILL)

def break_the_interpreter(self, job):
    import builtins, sys
    sys.stdout = sys.stderr = None
    sys.modules.clear()
    builtins.__import__ = builtins.print = None
    raise ValueError("broken")

def strange_exception(self, job):
    class Strange(BaseException):
        def __str__(self):
            raise RuntimeError("not even this")
        __repr__ = __str__
    raise Strange()
"""


@dataclass(frozen=True)
class Scenario:
    do: str
    causes: frozenset[Cause]
    timeout_s: float = 20.0
    cancel: bool = False


CRASH, HANG, FINE = frozenset({Cause.CRASH}), frozenset({Cause.HANG}), frozenset({Cause.SUCCEEDED})
SCENARIOS = [
    Scenario("forge_done", CRASH),
    Scenario("forge_length", CRASH),
    Scenario("print_rubbish", CRASH),
    Scenario("print_frames", FINE),
    Scenario("close_all", CRASH),
    Scenario("close_output", FINE),
    Scenario("fork_that_keeps_everything", FINE),
    Scenario("fork_and_crash", CRASH),
    Scenario("daemon", FINE),
    Scenario("daemon_and_crash", CRASH),
    Scenario("fork_bomb_of_fifty", FINE),
    Scenario("ignore_signals_and_hang", HANG, timeout_s=0.3),
    Scenario("segfault", CRASH),
    Scenario("hang_in_c", HANG, timeout_s=0.3),
    Scenario("hang_in_c_with_the_interpreter_free", HANG, timeout_s=0.3),
    Scenario("stop_itself", HANG, timeout_s=0.3),
    Scenario("swallow_everything", frozenset({Cause.CANCELLED}), cancel=True),
    Scenario("progress_for_ever", HANG, timeout_s=0.3),
    Scenario("deep_result", FINE | {Cause.EXCEPTION}),
    Scenario("exit_cleanly", CRASH),
    Scenario("kill_the_group", CRASH),
    Scenario("break_the_interpreter", CRASH | {Cause.EXCEPTION}),
    Scenario("strange_exception", frozenset({Cause.EXCEPTION})),
]


@dataclass
class Slot:
    """What a worker's slot does with its child, no more: one at a time, replaced when it is gone, a lock held by it."""

    folder: Path
    child: Child
    lock: Path

    def run(self, request: JobRequest, scenario: Scenario) -> ChildOutcome:
        if not self.child.alive:
            self.replace()
        tell = (lambda *_: self.child.cancel()) if scenario.cancel else None
        try:
            return self.child.run(request, timeout_s=scenario.timeout_s, on_progress=tell, cancel_grace_s=0.3)
        except ChildGone:
            self.replace()
            return self.run(request, scenario)

    def replace(self) -> None:
        self.child.stop(0)
        self.child = started(self.child.spec)

    def is_free(self) -> bool:
        with self.lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    path = tmp_path / "slot.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    spec = a_spec(tmp_path, HOSTILE, keep_open_fds=(descriptor,))
    made = Slot(tmp_path, started(spec), path)
    before = ours()
    try:
        yield made
    finally:
        made.child.stop(0)
    os.close(descriptor)
    assert made.is_free(), "somebody still holds the slot's lock"
    assert not ours() - before, "processes are left"


def ours() -> set[int]:
    return {process.pid for process in descendants.below(os.getpid(), descendants.all_processes())}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.do)
def test_it_costs_that_attempt_only(slot: Slot, tmp_path: Path, scenario: Scenario) -> None:
    for _ in range(ROUNDS):
        request = a_request(tmp_path, {"do": scenario.do})
        outcome = slot.run(request, scenario)
        assert outcome.cause in scenario.causes, outcome
        assert outcome.result in (None, "came back"), outcome
        if outcome.cause is Cause.CRASH:
            assert not slot.child.alive
        after = slot.run(a_request(tmp_path, {"do": "nothing"}), Scenario("nothing", FINE))
        assert (after.cause, after.result) == (Cause.SUCCEEDED, "fine"), after
        if request.log_path.exists():  # made with the first output
            assert request.log_path.stat().st_size <= LOG_LIMIT_BYTES + 100
    report = slot.child.stop(5)
    assert report.gone


def test_output_without_end_fills_neither_memory_nor_disk(slot: Slot, tmp_path: Path) -> None:
    request = a_request(tmp_path, {"do": "print_much", "blocks": PRINTED_BYTES >> 20})
    before = psutil.Process().memory_info().rss
    outcome = slot.run(request, Scenario("print_much", FINE, timeout_s=250))
    assert outcome.result == "came back", outcome
    assert psutil.Process().memory_info().rss - before < MEMORY_GROWTH_LIMIT_BYTES
    text = request.log_path.read_bytes()
    assert LOG_LIMIT_BYTES <= len(text) <= LOG_LIMIT_BYTES + 100
    assert b"bytes left out" in text and text.endswith(b"x\n")


def test_children_come_and_go_without_a_trace(slot: Slot, tmp_path: Path) -> None:
    slot.replace()
    before = descriptors(), threading.active_count(), len(ours())
    for scenario in SCENARIOS[:: 1 if FULL else 4]:
        slot.run(a_request(tmp_path, {"do": scenario.do}), scenario)
        slot.replace()
    assert (descriptors(), threading.active_count(), len(ours())) == before


def test_a_hostile_start_is_a_failed_start(tmp_path: Path) -> None:
    from modelrepo.errors import EntrypointFailed

    for code in (
        "import os; os.closerange(0, 1 << 16)",
        "import os; os.abort()",
        "import os; os.kill(os.getpid(), 19)",
    ):
        child = Child.start(a_spec(tmp_path, code + "\ndef run(self, job): pass"), shared_spawner())
        with pytest.raises(EntrypointFailed):
            child.load(2)
        assert not child.alive and child.stop().gone
