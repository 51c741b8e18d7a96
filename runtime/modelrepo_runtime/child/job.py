"""The `job` object that a stage method gets."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from . import state_file
from .adapter import Adapter
from .ballot import Ballot
from .frames import Channel, Message
from .process import end_now
from .saving import Saver

RESULT_LIMIT_BYTES = 256 * 1024
"""What a stage may return as JSON; more belongs in an output file."""
_MESSAGE_LIMIT = 1000
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
"""Of outputs and of what stages hand over."""


class Cancelled(BaseException):
    """The job was cancelled. No Exception, so that a model's own `except Exception` does not swallow it."""


class Rejected(Exception):
    """The job can never succeed: its inputs are at fault."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class Retry(Exception):
    """The job should be tried again elsewhere or later."""


class Job:
    """One attempt at one stage of a job."""

    def __init__(self, channel: Channel, request: Message) -> None:
        self._channel = channel
        self._nonce: str = request["n"]
        self._process = os.getpid()
        self._over = False
        # Held while the channel is used; a signal handler of the model may ask in the midst of it.
        self._telling = threading.RLock()
        self._cancelled = False
        self._heard = False
        """The supervisor has said that it is cancelled; in a group of ranks the ballot says from which question on."""
        self._ballot = Ballot(request["ballot"], request["rank"]) if "ballot" in request else None
        self._leads = self._ballot is None or request["rank"] == 0
        """Whether it is this process that speaks for the job; the other ranks of a group run it in silence."""
        self._batch: list[Job] = [self]
        # All jobs of this call: whichever of them looks, reads what is said to any.
        self._files: dict[str, str] = request["files"]
        self._outputs = Path(request["output_dir"])
        self._handover = Path(request["handover_dir"])
        kept = request.get("state") or {}
        self._found: str | None = kept.get("found")
        self._saver = Saver(kept) if kept.get("folders") else None
        self._least = 0.0
        """How far the attempt was whose state this one goes on from."""
        self._shown: dict[str, Any] = {"fraction": None, "message": None}
        self.id: str = request["job_id"]
        self.attempt: int = request["attempt"]
        self.inputs: dict[str, Any] = request["inputs"]
        self.previous: Any = request["previous"]
        self.adapters = [Adapter(**each) for each in request["adapters"]]

    def file(self, name: str) -> Path:
        """The local path of a file input."""
        try:
            return Path(self._files[name])
        except KeyError:
            known = ", ".join(sorted(self._files)) or "none"
            raise KeyError(f"job {self.id} has no file input {name!r}; it has {known}") from None

    def output(self, name: str) -> Path:
        """Where to write an output; it is kept when the stage succeeds."""
        return _in_folder(self._outputs, name)

    def handover(self, name: str) -> Path:
        """Where to write what a later stage of this job reads, or where an earlier one has written it."""
        return _in_folder(self._handover, name)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell how far the stage has come, 0 to 1. Raises Cancelled."""
        self.check()
        value = float(fraction)
        value = 0.0 if math.isnan(value) else min(1.0, max(0.0, value))
        self._tell_progress(max(self._least, value), None if message is None else str(message)[:_MESSAGE_LIMIT])

    def check(self) -> None:
        """Raise Cancelled once the job was cancelled."""
        if self.cancelled:
            raise Cancelled(f"job {self.id} was cancelled")

    @property
    def cancelled(self) -> bool:
        """True once the job was cancelled."""
        with self._telling:
            if not self._cancelled and self._ours():
                if self._leads:
                    self._look()
                self._cancelled = self._heard if self._ballot is None else self._ballot.ask(self._heard)
        return self._cancelled

    def _look(self) -> None:
        for message in self._channel.arrived():
            if message["t"] != "cancel":
                self._channel.give_back(message)
                continue
            for job in self._batch:
                job._heard = job._heard or message.get("n") == job._nonce
        if self._channel.ended:
            end_now(1)

    def reject(self, code: str, message: str) -> NoReturn:
        """End the job for good: its inputs are at fault, another attempt would not help."""
        raise Rejected(str(code), str(message))

    def retry(self, message: str) -> NoReturn:
        """Ask for another attempt."""
        raise Retry(str(message))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep what a later attempt at this stage can go on from; returns once it is copied. The two newest are held.

        Values are what JSON has, bytes, tensors, numpy arrays, and dicts, lists and tuples of these; anything else is a
        TypeError that names its key. In a group of ranks rank 0 saves.
        """
        if self._saver is None or not self._leads or os.getpid() != self._process:
            state_file.pack(state, {})
            return
        saved = self._saver.save(state, self._shown)
        if saved.path is None:
            print(f"modelrepo: state {saved.number} was not saved: {saved.why}", file=sys.stderr)
        self._send(
            {
                "t": "saved",
                "n": self._nonce,
                "number": saved.number,
                "path": None if saved.path is None else str(saved.path),
                "bytes": saved.size_bytes,
                "blocked_s": saved.blocked_s,
                "in_memory": saved.in_memory,
                "why": saved.why,
            }
        )

    @property
    def state(self) -> dict[str, Any] | None:
        """What an earlier attempt at this stage saved last, tensors on the CPU; None where there is nothing.

        What this attempt saves does not change it. From here on no less progress is told than was made then.
        """
        found = self._found
        if found is None:
            return None
        state, about = state_file.read(Path(found)), state_file.read_about(Path(found))
        fraction = about.get("fraction")
        if isinstance(fraction, float) and fraction > self._least:
            self._least = fraction
            self._tell_progress(fraction, about.get("message"))
        return state

    def _tell_progress(self, fraction: float, message: str | None) -> None:
        self._shown = {"fraction": fraction, "message": message}
        self._send({"t": "progress", "n": self._nonce, "fraction": fraction, "message": message})

    def _partial(self, value: Any) -> None:
        self._send({"t": "partial", "n": self._nonce, "value": value})

    def _end(self) -> None:
        """Say and read nothing more: a thread that outlives the stage must not speak for the next job."""
        with self._telling:
            if self._ballot is not None and not self._over:
                self._ballot.close()
            self._over = True
        if self._saver is not None and os.getpid() == self._process:
            self._saver.close()

    def _send(self, message: Message) -> None:
        with self._telling:
            if self._leads and self._ours():
                self._channel.send(message)

    def _ours(self) -> bool:
        return not self._over and os.getpid() == self._process


def _in_folder(folder: Path, name: str) -> Path:
    if not FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain file name of letters, digits and `._-`")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
