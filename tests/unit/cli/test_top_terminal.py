"""`top` on a real terminal: drawn, drawn anew, left by q or Ctrl-C, and the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import Forbidden, Unreachable
from modelrepo_cli.commands.top import Looker
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

LIMIT_S = 20.0


@dataclass
class Seat:
    """Somebody before a terminal of 160 columns on which `top` runs."""

    process: subprocess.Popen[bytes]
    terminal: int
    kept: int
    """The other end, as the command has it."""
    modes: list[Any]
    shown: str = ""

    def sees(self, words: str) -> None:
        """Wait until the words are written after all that was awaited before."""
        end = time.monotonic() + LIMIT_S
        while words not in self.shown:
            assert time.monotonic() < end, f"{words!r} is not in {self.shown[-300:]!r}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.shown += os.read(self.terminal, 65536).decode("utf-8", "replace")
        self.shown = self.shown.partition(words)[2]

    def left(self) -> int:
        """Read until the command has ended; returns its exit code."""
        self.sees("\x1b[?1049l")
        return self.process.wait(LIMIT_S)


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    path = tmp_path / "queue.db"
    with closing(SqliteQueue(path)) as queue:
        session = queue.hello(WorkerInfo("box-1", "host", 1, slots=("0",)))
        queue.beat(session, (), (SlotReport("0", "refused", "m", reason="no memory for it"),))
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    modes = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "modelrepo_cli", "top", "--every", "50ms", "--queue", str(path)]
    environ = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES"):
        environ.pop(name, None)
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, preexec_fn=_take_terminal
    )
    yield Seat(process, terminal, theirs, modes)
    process.kill()
    process.wait()
    os.close(terminal)
    os.close(theirs)


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_it_is_drawn_again_and_q_leaves_the_terminal_as_it_was(seat: Seat) -> None:
    seat.sees("\x1b[?1049h\x1b[?25l")
    for _ in range(2):
        seat.sees("\x1b[H")
        seat.sees("no memory for it")
    assert not termios.tcgetattr(seat.kept)[3] & termios.ICANON
    os.write(seat.terminal, b"xq")
    assert seat.left() == 0
    assert termios.tcgetattr(seat.kept) == seat.modes


def test_ctrl_c_leaves_the_terminal_as_it_was(seat: Seat) -> None:
    seat.sees("no memory for it")
    os.write(seat.terminal, b"\x03")
    assert seat.left() == 0
    assert termios.tcgetattr(seat.kept) == seat.modes


def test_it_fits_a_terminal_that_changes_its_size(seat: Seat) -> None:
    seat.sees("no memory for it")
    fcntl.ioctl(seat.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 30, 0, 0))
    os.killpg(seat.process.pid, signal.SIGWINCH)
    seat.sees("q leaves\x1b[K\r\n0 waiting in 0 lanes, policy s\x1b[K\r\n\x1b[J")
    os.write(seat.terminal, b"q")
    assert seat.left() == 0


def test_a_queue_that_comes_back_is_seen_again_and_what_no_patience_mends_ends_it() -> None:
    looks: Iterator[Any] = iter(["one", Unreachable("gone"), Unreachable("gone still"), "two", Forbidden("revoked")])
    told: list[Any] = []

    def look() -> Any:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    looker: Looker

    def changed() -> None:
        try:
            told.append(looker.seen())
        except Forbidden as error:
            told.append(str(error))

    looker = Looker(look, "first", 0.0, changed)  # type: ignore[arg-type]
    looker.start()
    looker._thread.join(LIMIT_S)
    looker.stop()
    views, aways = [each[0] for each in told[:-1]], [each[1] for each in told[:-1]]
    assert views == ["one", "one", "one", "two"] and told[-1] == "revoked"
    assert aways == [None, "gone", "gone still", None]
    assert told[1][2] == told[2][2], "away since it went, not since it was asked last"
