"""Where running jobs save their states on this box, in shared memory and on the disk, and what lies there.

<folder>/<job>/<number of the fence>/<number>.state     whole; the same names in shared memory and on the disk
<folder>/<job>/<number of the fence>/<number>.part      being written, or to be written over
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelrepo_runtime.child.room import room_on_tmpfs
from modelrepo_runtime.child.state_file import SUFFIX, TornState, read_about
from modelrepo_runtime.jobs import Claim
from modelrepo_runtime.pool.place import SHARED_MEMORY, filesystem_of

LONGEST_IN_MEMORY_S = 3600.0
"""What no attempt here has used for so long is left to the storage: the memory is for jobs that run."""
LONGEST_ON_DISK_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Found:
    """A whole state on this box."""

    path: Path
    fence: int
    number: int

    @property
    def age(self) -> tuple[int, int]:
        """As KeptState.age."""
        return self.fence, self.number


class StateFolders:
    """May be shared by threads, and the folders by several workers of the box."""

    def __init__(self, disk: Path, memory: Path | None = None, problem: str = "") -> None:
        """`memory` None: `problem` says why states go to the disk."""
        self.disk, self.memory, self.problem = disk, memory, problem

    @classmethod
    def open(cls, cache: Path, memory: Path | None = None) -> StateFolders:
        """Choose the folders of a box: `memory`, else one of the cache's own in /dev/shm."""
        disk = cache / "worker" / "states"
        disk.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = hashlib.sha256(str(cache.absolute()).encode()).hexdigest()[:12]
        chosen = memory or SHARED_MEMORY / f"modelrepo-states-{os.getuid()}-{own}"
        problem = _unsuitable(chosen)
        return cls(disk, None if problem else chosen, problem)

    def of_attempt(self, claim: Claim) -> tuple[Path | None, Path]:
        """Return where an attempt saves, in memory and on the disk. A job's folder on the disk is there then."""
        inner = Path(claim.job_id) / str(claim.fence.number)
        (self.disk / claim.job_id).mkdir(mode=0o700, parents=True, exist_ok=True)
        return None if self.memory is None else self.memory / inner, self.disk / inner

    def place_of(self, job_id: str, fence: int, number: int, *, in_memory: bool) -> Path:
        """Return where one state lies."""
        root = self.memory if in_memory and self.memory is not None else self.disk
        return root / job_id / str(fence) / f"{number}{SUFFIX}"

    def make_room(self, place: Path, size_bytes: int) -> bool:
        """Make the folder of a place in shared memory; False where there is no room for so many bytes."""
        for folder in (place.parent.parent.parent, place.parent.parent, place.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        return room_on_tmpfs(place.parent) >= size_bytes

    def found(self, job_id: str, stage: str, digest: str) -> list[Found]:
        """Return the whole states that a stage of a version has saved here, the newest first."""
        states = [each for each in self._files(job_id) if _belongs(each, job_id, stage, digest)]
        return sorted(states, key=lambda each: each.age, reverse=True)

    def last_number(self, job_id: str) -> int:
        """Return the largest number of a job's states here, whole or not; 0 where there is none."""
        return max((each.number for each in self._files(job_id)), default=0)

    def keep_only(self, job_id: str, used: Sequence[Path]) -> None:
        """Remove every state of a job but these."""
        for root in self._roots():
            for path in (root / job_id).glob("*/*"):
                if path not in used:
                    path.unlink(missing_ok=True)

    def forget(self, job_id: str) -> None:
        """Remove everything of a job."""
        for root in self._roots():
            shutil.rmtree(root / job_id, ignore_errors=True)

    @contextmanager
    def used(self, job_id: str) -> Iterator[None]:
        """Keep a job's states from being swept."""
        descriptor = os.open(self.disk / job_id, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def sweep(self, wanted: Callable[[Sequence[str]], Sequence[str]]) -> int:
        """Remove states of jobs that have ended, and what lies here too long; return of how many jobs.

        `wanted` says which of the jobs have not ended; what it raises is raised. What an attempt uses stays.
        """
        jobs = sorted({path.name for root in self._roots() for path in root.glob("job_*")})
        known = frozenset(wanted(jobs)) if jobs else frozenset[str]()
        return sum(self._swept(job, ended=job not in known) for job in jobs)

    def close(self) -> None:
        """Remove the folder in shared memory where nothing is left in it."""
        if self.memory is not None:
            for folder in (*self.memory.glob("*/*"), *self.memory.glob("*"), self.memory):
                with suppress(OSError):
                    folder.rmdir()

    def _swept(self, job_id: str, *, ended: bool) -> bool:
        (self.disk / job_id).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.disk / job_id, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            if ended or _unused_s(self.disk / job_id) > LONGEST_ON_DISK_S:
                self.forget(job_id)
                return True
            if self.memory is not None and _unused_s(self.memory / job_id) > LONGEST_IN_MEMORY_S:
                shutil.rmtree(self.memory / job_id, ignore_errors=True)
                return True
            return False
        finally:
            os.close(descriptor)

    def _files(self, job_id: str) -> Iterator[Found]:
        for root in self._roots():
            for path in (root / job_id).glob(f"*/*{SUFFIX}"):
                if path.parent.name.isdigit() and path.stem.isdigit():
                    yield Found(path, int(path.parent.name), int(path.stem))

    def _roots(self) -> tuple[Path, ...]:
        return (self.disk,) if self.memory is None else (self.memory, self.disk)


def _belongs(state: Found, job_id: str, stage: str, digest: str) -> bool:
    try:
        about = read_about(state.path)
    except (OSError, TornState, ValueError):
        return False
    wanted = (job_id, stage, digest, state.number)
    return (about.get("job"), about.get("stage"), about.get("digest"), about.get("number")) == wanted


def _unused_s(folder: Path) -> float:
    newest = 0.0
    for path in (folder, *folder.glob("*/*")):
        with suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest if newest else 0.0


def _unsuitable(folder: Path) -> str:
    """Say why a folder cannot hold states in memory; empty where it can. It is made with the first state."""
    try:
        found = folder.lstat() if folder.exists() else None
        folder.parent.lstat()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    if found is not None and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
        return f"{folder} is no folder of ours"
    kind = filesystem_of(folder if found is not None else folder.parent)
    return "" if kind in ("tmpfs", "ramfs") else f"{folder} lies on {kind or 'an unknown filesystem'}, not on tmpfs"
