"""A child's process with everything that hangs on it: control channel, output, memory cgroup, record."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import psutil

from modelrepo_runtime import child as harness
from modelrepo_runtime.child.frames import FROM_CHILD_BYTES, Channel, Message
from modelrepo_runtime.memory_limits import out_of_memory_kills

from . import descendants
from .environment import child_environment
from .logs import BoundedLog, LogDrain, OpenLog
from .memory_figures import host_figures
from .memory_group import MakesGroups, MemoryGroup
from .outcome import describe_exit
from .record import remove_record, write_record
from .spawner import Spawned, Spawner, SpawnRequest
from .spec import ChildSpec, Footprint, StopReport
from .watch import Watch

START_LOG = "start.log"
_SEND_S = 10
"""A child that reads nothing for so long is as good as dead."""
_KILL_S = 10.0
"""How long the kernel may take to end what was killed."""


FIRST_TO_GO = 500
"""Added to what the kernel's judge thinks of a child, in thousandths of all memory: where somebody has to be ended for
want of memory, a job can be tried again, and a worker holds all of them."""


class ChildProcess:
    """The process and its descriptors, from spawn to the last of its descendants."""

    def __init__(
        self, spec: ChildSpec, spawner: Spawner, memory: MakesGroups | None, open_log: OpenLog = BoundedLog
    ) -> None:
        self.folder = spec.folder
        self.scratch = spec.folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.last_output = ""
        self._spawner = spawner
        self._own_group = not spec.terminal
        self._memory: MemoryGroup | None = None
        self._memory_limit_bytes = spec.memory_limit_bytes
        self._found_ended = False
        self._peak_bytes = 0
        self.open_log = open_log
        self.log = open_log(spec.folder / START_LOG)
        self.drain = LogDrain(spec.name, self.log)
        ours, theirs = socket.socketpair()
        try:
            self._memory = memory.create(spec.model, spec.memory_limit_bytes) if memory else None
            self._spawned = self._spawn(spec, theirs)
        except BaseException:
            ours.close()
            self.drain.child_has_it()
            self.drain.close()
            if self._memory:
                self._memory.remove()
            raise
        finally:
            theirs.close()
        self.drain.child_has_it()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
        self.note_memory_kills()
        self.channel = Channel(ours, receive_limit_bytes=FROM_CHILD_BYTES)
        self._popen: subprocess.Popen[bytes] = self._spawned.process
        self.watch = Watch(self.channel, self._popen)

    def _spawn(self, spec: ChildSpec, control: socket.socket) -> Spawned:
        token = secrets.token_hex(16)
        spawned = self._spawner.spawn(
            SpawnRequest(
                command=(str(spec.python), "-I", "-B", _HARNESS, str(control.fileno()), str(os.getpid())),
                env=child_environment(spec, os.environ, token),
                folder=spec.folder,
                stdin=0 if spec.terminal else subprocess.DEVNULL,
                output=2 if spec.terminal or spec.live_output else self.drain.write_end,
                pass_fds=(control.fileno(), *spec.keep_open_fds),
                new_session=not spec.terminal,
            )
        )
        try:
            if self._memory is not None:
                # The harness waits for its first message: nothing of the model can have escaped yet.
                self._memory.add(spawned.process.pid)
            _let_go_first(spawned.process.pid)
            write_record(spec.folder, spawned.process.pid, token, spawned.mark)
        except BaseException:
            spawned.process.kill()
            spawned.process.wait()
            self._spawner.forget(spawned)
            raise
        return spawned

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_memory_group(self) -> bool:
        return self._memory is not None

    def tell(self, message: Message) -> bool:
        """Send a message; False where nobody listens any more."""
        try:
            self.channel.send(message)
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        """Signal the first process, while its number is certainly its own."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def dump_stacks(self, limit_s: float) -> None:
        """Have all stacks written to the output, and wait until they are read."""
        self.signal(signal.SIGUSR2)
        self.drain.wait_for_output(limit_s)

    def note_memory_kills(self) -> None:
        """From here on `killed_for_memory` counts."""
        self._memory_kills = self._count_kills()

    def killed_for_memory(self) -> bool:
        """True where the kernel has killed one of its processes for want of memory.

        In a cgroup of its own the kernel counts just these. Without one it is the process itself that must have been
        killed, by nobody here, while the kernel killed for want of memory in our cgroup, or on the box.
        """
        if self._memory is None and not self._was_killed():
            return False
        before, now = self._memory_kills, self._count_kills()
        return before is not None and now is not None and now > before

    def unexplained(self) -> bool:
        """True where it was killed by nobody here, and no count could tell whether for want of memory."""
        return self._memory is None and self._was_killed() and self._count_kills() is None

    def host_figures(self) -> str:
        """Say what its processes had of the host's memory, what they may have, and what is free around them."""
        peak_bytes = self._memory.peak_bytes() if self._memory else max(self._peak_bytes, _peak_bytes(self.pid))
        return host_figures(peak_bytes, self._memory_limit_bytes if self._memory else None)

    def _count_kills(self) -> int | None:
        return self._memory.out_of_memory_kills() if self._memory else out_of_memory_kills()

    def _was_killed(self) -> bool:
        return self._found_ended and self._popen.returncode == -signal.SIGKILL

    def footprint(self, *, ended: bool) -> Footprint:
        """Measure host memory; of a process that has `ended` only the peak that was seen."""
        rss = own = 0
        if ended:
            return Footprint(rss, self._peak_bytes)
        for pid in {self.pid, *(process.pid for process in descendants.family(self.pid, self._spawned.mark))}:
            with contextlib.suppress(psutil.Error):
                memory = psutil.Process(pid).memory_info()
                rss += memory.rss
                own += memory.rss - getattr(memory, "shared", 0)
        peak = self._memory.peak_bytes() if self._memory else _peak_bytes(self.pid)
        self._peak_bytes = max(self._peak_bytes, peak, rss)
        return Footprint(rss, self._peak_bytes, own)

    def how_it_ended(self) -> str:
        """Say how the process ended; only once `end` has returned."""
        return describe_exit(self._popen.returncode)

    def exit_code(self) -> int:
        """The exit code in the manner of a shell: 128 and more for a signal; only once `end` has returned."""
        code = self._popen.returncode
        return 1 if code is None else code if code >= 0 else 128 - code

    def end(self, *, polite_s: float, terminate_s: float) -> StopReport:
        """End the process and all that it started, gently at first where there is time for it."""
        step = "gone before"
        # Who is killed closes its channel a little before it is gone.
        self._found_ended = self.watch.has_ended() or self.channel.ended
        if not self.watch.has_ended():
            step = "killed"
            if polite_s > 0 and self.tell({"t": "stop"}) and self.watch.wait_end(polite_s):
                step = "drained"
            elif terminate_s > 0:
                self.signal(signal.SIGTERM)
                if self.watch.wait_end(terminate_s):
                    step = "terminated"
        if self._own_group:
            # The leader is not waited for yet, so the number of its group cannot belong to anybody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        else:
            self.signal(signal.SIGKILL)
        orphans, gone = descendants.end_family(self.pid, self._spawned.mark, _KILL_S)
        if self._memory is not None:
            self._memory.kill()
        gone = self.watch.wait_end(_KILL_S) and gone
        if gone:
            self._popen.wait()
        return StopReport(step, orphans, gone)

    def let_go(self, gone: bool) -> None:
        """Close and delete what hangs on the process; nobody may be waiting on it any more."""
        self.last_output = self.drain.recent()
        self.drain.close()
        self.channel.sock.close()
        self.watch.close()
        self._spawner.forget(self._spawned)
        if gone:
            remove_record(self.folder)
        if self._memory is not None:
            self._memory.remove()


_HARNESS = str(Path(harness.__file__).parent)


def _let_go_first(pid: int) -> None:
    """Have the kernel end a child, and what it starts, before its worker. Nobody needs a right for that."""
    path = Path(f"/proc/{pid}/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        path.write_text(str(max(FIRST_TO_GO, int(path.read_text()))))


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
