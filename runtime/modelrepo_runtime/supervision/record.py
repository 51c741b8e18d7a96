"""Who the child was, written down, so that the slot's next owner can end what a killed worker left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import descendants
from .environment import TOKEN_VARIABLE

RECORD_NAME = "process.json"
RANK_FOLDERS = "rank-*"
"""In a child's folder: those of the further ranks of its group, each with a record of its own."""
_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A child beyond doubt: pid and start of its first process, the boot, and what all its descendants carry."""

    pid: int
    started: int
    boot: str
    token: str
    """In the environment of everything that it starts."""
    mark: int | None
    """A resource limit that survives a new session and an empty environment."""


def write_record(folder: Path, pid: int, token: str, mark: int | None) -> None:
    """Write down a child that was just started."""
    process = descendants.read_process(pid)
    record = ProcessRecord(pid, process.started if process else 0, _boot(), token, mark)
    partial = folder / (RECORD_NAME + ".part")
    partial.write_text(json.dumps(asdict(record)))
    partial.replace(folder / RECORD_NAME)


def remove_record(folder: Path) -> None:
    """The child and all that it started are gone."""
    (folder / RECORD_NAME).unlink(missing_ok=True)


def is_recorded(folder: Path) -> bool:
    """Say whether a folder still records a process of a child, or of a rank of its group."""
    return (folder / RECORD_NAME).exists() or any(folder.glob(f"{RANK_FOLDERS}/{RECORD_NAME}"))


def end_recorded_group(folder: Path) -> tuple[int, ...]:
    """End what is left of the child that a folder records, and return the pids that were ended.

    Only the holder of the slot's `owner.lock` may call this: nobody else can know that the child's supervisor is gone.
    A pid that meanwhile belongs to another process is left alone. Raises TimeoutError where a process survives SIGKILL.
    """
    ranks = [pid for rank in sorted(folder.glob(RANK_FOLDERS)) for pid in end_recorded_group(rank)]
    return tuple(sorted({*_end_recorded(folder), *ranks}))


def _end_recorded(folder: Path) -> tuple[int, ...]:
    path = folder / RECORD_NAME
    try:
        record = ProcessRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError):
        path.unlink(missing_ok=True)
        return ()
    ended: set[int] = set()
    end = time.monotonic() + _LIMIT_S
    while record.boot == _boot():
        left = _leftovers(record)
        if not left:
            break
        if time.monotonic() >= end:
            raise TimeoutError(f"processes {left} of the child recorded in {path} survive SIGKILL")
        ended |= set(left)
        descendants.kill_all(left, signal.SIGKILL)
        descendants.wait_gone(left, 1.0)
    path.unlink(missing_ok=True)
    return tuple(sorted(ended))


def _leftovers(record: ProcessRecord) -> list[int]:
    living = [process for process in descendants.all_processes().values() if not process.zombie]
    leader = descendants.read_process(record.pid)
    if leader is not None and leader.started != record.started:
        # The number was given away: then no group or session of the old leader can be left either.
        same_group: set[int] = set()
    else:
        same_group = {p.pid for p in living if record.pid in (p.group, p.session) and p.started >= record.started}
    wanted = f"{TOKEN_VARIABLE}={record.token}".encode()
    return [
        process.pid
        for process in living
        if process.started >= record.started
        and process.pid != os.getpid()
        and (process.pid in same_group or wanted in _variables(process.pid) or _carries(process.pid, record.mark))
    ]


def _carries(pid: int, mark: int | None) -> bool:
    return mark is not None and descendants.mark_of(pid) == mark


def _variables(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
