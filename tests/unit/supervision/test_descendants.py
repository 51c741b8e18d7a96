"""What a child leaves behind is found and ended, wherever it went."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from modelrepo_runtime.supervision import descendants, end_recorded_group, shared_spawner
from modelrepo_runtime.supervision.record import RECORD_NAME
from modelrepo_runtime.testing.children import a_request, a_spec, started

ESCAPE = """
def run(self, job):
    import os
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.set_inheritable(write, True)
            script = f"import os, time; os.write({write}, b'%d' % os.getpid()); os.close({write}); time.sleep(600)"
            import sys
            os.closerange(0, write)
            os.execve(sys.executable, [sys.executable, "-c", script], {})
        os._exit(0)
    os.close(write)
    job.progress(0, os.read(read, 100).decode())
    import threading
    if job.inputs.get("stay"):
        threading.Event().wait()
"""


def test_a_daemon_with_its_own_session_and_a_clean_environment_is_ended_with_its_child(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, ESCAPE))
    told: list[str | None] = []
    child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda _, message: told.append(message))
    daemon = int(told[0] or 0)
    living = descendants.read_process(daemon)
    assert living is not None and living.parent == os.getpid() and living.session != child.pid
    report = child.stop()
    assert report.gone and daemon in report.orphans
    assert descendants.read_process(daemon) is None


def test_another_childs_descendants_and_our_own_processes_are_left_alone(tmp_path: Path) -> None:
    first, second = started(a_spec(tmp_path, ESCAPE)), started(a_spec(tmp_path, ESCAPE))
    own = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    told: list[str | None] = []
    for child in (first, second):
        child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda _, message: told.append(message))
    assert first.stop().orphans == (int(told[0] or 0),)
    living = descendants.read_process(int(told[1] or 0))
    assert living is not None and not living.zombie
    assert second.alive and own.poll() is None
    assert second.stop().orphans == (int(told[1] or 0),)
    own.communicate(b"\n")
    assert own.returncode == 0


def test_ended_orphans_of_a_living_child_are_collected_and_nobody_elses(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, ESCAPE))
    told: list[str | None] = []
    child.run(a_request(tmp_path), timeout_s=20, on_progress=lambda _, message: told.append(message))
    daemon = int(told[0] or 0)
    own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    os.kill(daemon, signal.SIGKILL)
    descendants.wait_gone([daemon, own.pid], 20)
    mark = descendants.mark_of(child.pid)
    assert mark is not None and descendants.mark_of(daemon) == mark
    descendants.collect_zombies({mark}, {child.pid})
    assert descendants.read_process(daemon) is None
    assert own.wait() == 3
    child.stop()


def test_the_processes_of_a_killed_supervisor_are_ended_by_its_successor(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, ESCAPE)
    script = f"""
        import sys
        from pathlib import Path
        from modelrepo_runtime.supervision import Child, ChildSpec, shared_spawner
        from modelrepo_runtime.testing.children import a_request
        spec = ChildSpec(
            python=Path(sys.executable), code_roots=({str(spec.code_roots[0])!r},), entrypoint="model:Model",
            model="demo", version="v1", stages=("run",), folder=Path({str(spec.folder)!r})
        )
        child = Child.start(spec, shared_spawner())
        child.load(20)
        def tell(_, message):
            print(child.pid, message, flush=True)
        child.run(a_request(Path({str(tmp_path)!r}), {{"stay": True}}), timeout_s=600, on_progress=tell)
    """
    supervisor = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    leader, daemon = map(int, supervisor.stdout.readline().split())
    shared_spawner()
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    descendants.wait_gone([leader], 10)
    left = descendants.read_process(daemon)
    assert left is not None and not left.zombie, "the test wants a daemon that outlives its supervisor"
    record = json.loads((spec.folder / RECORD_NAME).read_text())
    assert record["pid"] == leader
    assert end_recorded_group(spec.folder) == (daemon,)
    assert not (spec.folder / RECORD_NAME).exists()
    ended = descendants.read_process(daemon)
    assert ended is None or ended.zombie


def test_a_recorded_pid_that_belongs_to_somebody_else_now_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (tmp_path / RECORD_NAME).write_text(
        json.dumps({"pid": other.pid, "started": 1, "boot": boot, "token": "no such", "mark": None})
    )
    assert end_recorded_group(tmp_path) == ()
    assert other.poll() is None
    other.communicate(b"\n")


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json"])
def test_a_torn_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_NAME).write_text(text)
    assert end_recorded_group(tmp_path) == ()
