"""A worker as its users start it: the command, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from modelrepo.errors import ModelRepoError

# One slot on the CPU, the same on every box: torch's build may not be for this box's accelerators, and others use them.
_NO_ACCELERATOR = {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
STOP_S = 60.0  # above the worker's own grace, after which it ends whatever still runs


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker of the demo finds everything; nothing of the user's own settings reaches it."""

    repo: str
    queue: str
    files: str
    cache: Path
    folder: Path


class WorkerProcess:
    """`modelrepo worker`, ended with the `with` block at the latest."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.log = place.folder / f"{name}.log"
        settings = place.folder / "worker.yaml"
        settings.write_text("{}\n", encoding="utf-8")
        options = {"repo": place.repo, "queue": place.queue, "files": place.files, "cache": str(place.cache)}
        flags = [f"--{option}={value}" for option, value in options.items()]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MODELREPO_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelrepo_cli", "worker", *flags, f"--name={name}", f"--config={settings}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | _NO_ACCELERATOR,
                cwd=place.folder,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its workers in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raises: ModelRepoError, when it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise ModelRepoError(
                f"the demo's worker {self.name} ended with {code}: {self.last_words()}; its log is {self.log}"
            )

    def last_words(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def kill(self) -> None:
        """End it the hard way: SIGKILL, no farewell."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end and wait; SIGKILL when it does not. Stopping twice is legal."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
