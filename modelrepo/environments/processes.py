"""Runs a program to its end with an environment given whole, and ends it when asked to stop."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelrepo.contract.quantities import format_size
from modelrepo.errors import EnvironmentFailed, NoSpace, Stopped

_STOP_POLL_S = 0.2
_STOP_GRACE_S = 5.0
_KEPT_LINES = 40


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program answered."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def log(self) -> str:
        return "\n".join(self.stderr.splitlines()[-_KEPT_LINES:])


def run_process(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes = b"",
    stop: Callable[[], bool] | None = None,
) -> Finished:
    """Raises: Stopped once `stop()` says so, EnvironmentFailed where it cannot be started."""
    # Files, not pipes: however much it prints, nobody has to read along.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, cwd=cwd, env=dict(env), stdin=given, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise EnvironmentFailed(f"{command[0]} cannot be started: {error}") from error
        try:
            _wait(process, stop)
        finally:
            _end(process)
        return Finished(process.returncode, _text(out), _text(err))


@contextmanager
def full_disk_told(folder: Path, what: str) -> Iterator[None]:
    """Turn a full disk below `folder` into NoSpace, with what is left of it."""
    try:
        yield
    except (NoSpace, OSError) as error:
        if not isinstance(error, NoSpace) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        usage = shutil.disk_usage(folder)
        raise NoSpace(
            f"no space for {what} below {folder}: {format_size(usage.free)} of {format_size(usage.total)} are free; "
            f"make room there or choose another cache folder ({error})"
        ) from error


def _wait(process: subprocess.Popen[bytes], stop: Callable[[], bool] | None) -> None:
    while True:
        try:
            process.wait(timeout=None if stop is None else _STOP_POLL_S)
            return
        except subprocess.TimeoutExpired:
            if stop is not None and stop():
                raise Stopped(f"stopped on request while {process.args!r:.60} was at work") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that is still at work, and what it has started: a compiler would go on for hours."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_GRACE_S)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")
