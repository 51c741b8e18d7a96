"""From a child's last message, or its death, to the outcome of an attempt."""

from __future__ import annotations

import mimetypes
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modelrepo_runtime.child.frames import Message
from modelrepo_runtime.child.job import FILE_NAME
from modelrepo_runtime.jobs import Cause, JobError

from .spec import ChildOutcome, Lacked, MemoryPeaks, OutputPath, SavedState

_CAUSES = {
    "exception": Cause.EXCEPTION,
    "out_of_memory": Cause.OUT_OF_MEMORY,
    "rejected": Cause.REJECTED,
    "retry": Cause.RETRY,
    "cancelled": Cause.CANCELLED,
}
_MESSAGE_LIMIT = 4000


def succeeded(message: Message, output_dir: Path, runtime_s: float) -> ChildOutcome:
    """Read a `done` message. A folder or link where an output was to be written is the model's failure, not a loss."""
    try:
        outputs = find_outputs(output_dir)
    except ValueError as error:
        return ended(Cause.EXCEPTION, str(error), runtime_s)
    return ChildOutcome(Cause.SUCCEEDED, message.get("result"), outputs, runtime_s=runtime_s, memory=peaks(message))


def of_batch(
    message: Message, output_dirs: Sequence[Path], runtime_s: float, out_of_memory: bool
) -> list[ChildOutcome]:
    """Read how a call for several jobs ended."""
    if message["t"] != "done":
        return [failed(message, runtime_s, out_of_memory=out_of_memory) for _ in output_dirs]
    results = message.get("results", [])
    return [
        succeeded({"result": result}, folder, runtime_s) for result, folder in zip(results, output_dirs, strict=True)
    ]


def failed(
    message: Message,
    runtime_s: float,
    *,
    out_of_memory: bool = False,
    limited: bool = False,
    host_figures: Callable[[], str] = str,
) -> ChildOutcome:
    """Read a `failed` message; `out_of_memory` says that the kernel has killed a helper process of the child meanwhile.

    A kind that this version does not know is an exception. `limited`: its host memory has a limit of its own.
    `host_figures` says what it has of the host's memory, and what there is; asked where that ran out.
    """
    cause = _CAUSES.get(str(message.get("kind")), Cause.EXCEPTION)
    text = failure_text(message)
    if cause is Cause.EXCEPTION and out_of_memory:
        cause, text = Cause.OUT_OF_MEMORY, f"{text} (the kernel ended one of its processes for want of memory)"
    code = str(message.get("code")) if cause is Cause.REJECTED else cause.value
    retryable = cause not in (Cause.REJECTED, Cause.CANCELLED)
    memory = peaks(message)
    if cause is Cause.OUT_OF_MEMORY:
        on_host = out_of_memory or message.get("lacked") == Lacked.HOST.value
        text = with_figures(text, host_figures()) if on_host else text
        memory = replace(memory, lacked=lacked_on_host(limited) if on_host else Lacked.ACCELERATOR)
    return ChildOutcome(cause, error=JobError(code[:200], text, retryable), runtime_s=runtime_s, memory=memory)


def with_figures(text: str, figures: str) -> str:
    """Add to what ended for want of memory how much there was."""
    return f"{text[: _MESSAGE_LIMIT - len(figures) - 2]}; {figures}" if figures else text


def lacked_on_host(limited: bool) -> Lacked | None:
    """Say what an end for want of host memory tells of the slot: nothing where the contract's own limit was met."""
    return None if limited else Lacked.HOST


def peaks(message: Message) -> MemoryPeaks:
    """Read what the child measured of a job; of several that share a call it measures nothing."""
    told = message.get("memory")
    known = told if isinstance(told, dict) else {}
    return MemoryPeaks(_size(known.get("accelerator")), _size(known.get("host")))


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def failure_text(message: Message) -> str:
    """The exception's name and message, in the manner of a traceback's last line."""
    code, text = str(message.get("code") or "exception"), str(message.get("message") or "")
    if message.get("kind") in ("rejected", "retry", "cancelled"):
        return (text or code)[:_MESSAGE_LIMIT]
    return (f"{code}: {text}" if text else code)[:_MESSAGE_LIMIT]


def progress(message: Message) -> tuple[float, str | None]:
    """Read a `progress` message; what is no fraction counts as none."""
    fraction, text = message.get("fraction"), message.get("message")
    value = float(fraction) if isinstance(fraction, (int, float)) else 0.0
    return min(1.0, max(0.0, value)), text if isinstance(text, str) else None


def saved(message: Message) -> SavedState:
    """Read a `saved` message. Raises ValueError, TypeError where something else has written it."""
    path, why = message.get("path"), message.get("why")
    return SavedState(
        int(message.get("number", 0)),
        Path(path) if isinstance(path, str) else None,
        int(message.get("bytes", 0)),
        float(message.get("blocked_s", 0.0)),
        bool(message.get("in_memory")),
        why if isinstance(why, str) else "",
    )


def ended(cause: Cause, text: str, runtime_s: float) -> ChildOutcome:
    """An attempt that the child could not end itself."""
    retryable = cause is not Cause.CANCELLED
    return ChildOutcome(cause, error=JobError(cause.value, text, retryable), runtime_s=runtime_s)


def describe_exit(code: int | None) -> str:
    """Say how a process ended, from `Popen.returncode`."""
    if code is None:
        return "did not end"
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def find_outputs(folder: Path) -> tuple[OutputPath, ...]:
    """The files that a job has left under names that `job.output` gives. Raises ValueError for what is no file."""
    if not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.iterdir()):
        if not FILE_NAME.fullmatch(path.name):
            continue
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder; pack it into one file" if stat.S_ISDIR(mode) else "a link or device; write a plain file"
            raise ValueError(f"output {path.name!r} is {what}")
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        found.append(OutputPath(path.name, path, content_type))
    return tuple(found)
