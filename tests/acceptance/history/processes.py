"""Processes of a history: started, killed, stopped and started again by their own ids, and surely ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelrepo_runtime.jobs import Fence
from tests.acceptance.history import light_worker
from tests.acceptance.history.light_worker import Plan
from tests.acceptance.history.oracle import Said

END_S = 30.0


@dataclass(slots=True)
class Crew:
    """Light workers by name; one that was killed is started anew under another name."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    lives: int = 0

    def start(self, plan: Plan) -> str:
        """Start a worker; return the name of this life of it."""
        self.lives += 1
        name = f"{plan.name}.{self.lives}"
        told = replace(plan, name=name, log=str(self.folder / f"{name}.log"))
        self.plans[name] = plan
        self.running[name] = subprocess.Popen([sys.executable, light_worker.__file__, told.text()])
        return name

    def kill(self, name: str) -> str:
        """SIGKILL a worker and start another in its place."""
        process = self.running.pop(name)
        process.kill()
        process.wait(END_S)
        return self.start(self.plans[name])

    def stop(self, name: str) -> None:
        """SIGSTOP a worker."""
        os.kill(self.running[name].pid, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """SIGCONT a worker."""
        os.kill(self.running[name].pid, signal.SIGCONT)

    def leave(self) -> list[int]:
        """End all; return their exit codes."""
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.terminate()
        codes = []
        for process in self.running.values():
            try:
                codes.append(process.wait(END_S))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait(END_S))
        self.running.clear()
        return codes

    def said(self) -> tuple[Sequence[Said], Sequence[str]]:
        """Return what all workers wrote down, and the lines that should not be there."""
        said: list[Said] = []
        strange: list[str] = []
        for path in sorted(self.folder.glob("*.log")):
            for line in path.read_text().splitlines():
                event, job, fence = line.split(" ", 2)
                if event in ("claimed", "accepted", "refused"):
                    said.append(Said(path.stem, event, job, Fence.parse(fence)))
                elif event != "left":
                    strange.append(f"{path.stem}: {line}")
        return said, strange


@contextmanager
def crew(folder: Path) -> Iterator[Crew]:
    """Hold a crew that is ended whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Crew(folder)
    try:
        yield made
    finally:
        made.leave()
