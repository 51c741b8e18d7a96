from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from modelrepo.environments.processes import run_process
from modelrepo.errors import EnvironmentFailed, Stopped
from modelrepo.holds import take


def test_a_program_gets_exactly_the_environment_given(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ)); print(sys.stdin.read(), file=sys.stderr); sys.exit(3)"
    env = {"ONE": "1", "LC_CTYPE": "C.UTF-8"}
    done = run_process([sys.executable, "-I", "-c", code], cwd=tmp_path, env=env, stdin=b"given")
    assert done.returncode == 3
    assert done.stdout.strip() == "['LC_CTYPE', 'ONE']"
    assert done.log == "given"


def test_a_program_that_is_to_stop_is_gone(tmp_path: Path) -> None:
    code = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    pid = tmp_path / "pid"
    with pytest.raises(Stopped, match="stopped on request"):
        run_process(
            [sys.executable, "-c", code], cwd=tmp_path, env={}, stop=lambda: pid.exists() and pid.stat().st_size > 0
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    started = "import fcntl, time; file = open('held', 'w'); fcntl.flock(file, 2); open('begun', 'w'); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {started!r}])"
    with pytest.raises(Stopped):
        run_process([sys.executable, "-c", code], cwd=tmp_path, env={}, stop=(tmp_path / "begun").exists)
    tries = iter(range(200))
    take(tmp_path / "held", shared=False, stop=lambda: next(tries, None) is None).release()


def test_any_amount_of_output_is_read_to_its_end(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * 5_000_000); sys.stderr.write('y\\n' * 100)"
    done = run_process([sys.executable, "-c", code], cwd=tmp_path, env={})
    assert len(done.stdout) == 5_000_000
    assert len(done.log.splitlines()) == 40


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="cannot be started"):
        run_process([str(tmp_path / "none")], cwd=tmp_path, env={})
