"""The states that attempts on this box save, and those that they go on from."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelrepo.errors import NoSpace, NotFound
from modelrepo_runtime.child.state_file import TornState, read_about
from modelrepo_runtime.jobs import Cause, Claim, KeptState
from modelrepo_runtime.supervision.spec import SavedState, StateRequest
from modelrepo_runtime.worker.flush_messages import FlushOrder
from modelrepo_runtime.worker.flusher import Flusher
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.state_folders import StateFolders

FLUSH_PATIENCE_S = 30.0
"""How long an attempt that another one will go on from keeps its lease for the sake of its last state."""
_NO_MORE = frozenset({Cause.SUCCEEDED, Cause.REJECTED, Cause.CANCELLED})
"""After these nobody goes on from a state."""


class Fetches(Protocol):
    """Where states are kept beyond this box."""

    def fetch(self, key: str, target: Path) -> object: ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """What an attempt goes on from; `path` None: it begins anew."""

    path: Path | None = None
    number: int = 0
    """The largest that a state of the job has here or in the store."""


class States:
    """Shared by all slots of the box: the next attempt may run in another one."""

    def __init__(self, folders: StateFolders, files: Fetches, journal: Journal, flusher: Flusher | None = None) -> None:
        """`flusher` None: what is saved does not leave the box."""
        self._folders, self._files, self._journal, self._flusher = folders, files, journal, flusher
        self._lock = threading.Lock()
        self._used: dict[Held, ExitStack] = {}
        self._until: float | None = None

    @property
    def place(self) -> str:
        """Where states are saved, in words."""
        folders = self._folders
        return str(folders.memory) if folders.memory is not None else f"{folders.disk}, since {folders.problem}"

    @property
    def waiting(self) -> int:
        """How many attempts have a state that has not left the box yet; 0 where none ever does."""
        return self._flusher.waiting if self._flusher is not None else 0

    def hurry(self, until: float) -> None:
        """The worker is leaving: no flush is waited for beyond that moment of the monotonic clock."""
        self._until = until

    def bring(self, held: Held, digest: str) -> Resumed:
        """Find what the attempt goes on from: on this box, else in the store, the newest that is whole.

        Raises: Unreachable, OSError where the store does not answer.
        """
        claim = held.claim
        self._folders.of_attempt(claim)
        with self._lock:
            if held not in self._used:
                self._used[held] = ExitStack()
                self._used[held].enter_context(self._folders.used(claim.job_id))
        here = self._folders.found(claim.job_id, claim.stage, digest)
        last = max([self._folders.last_number(claim.job_id), *(state.number for state in claim.states)])
        for kept in [state for state in claim.states if state.digest == digest]:
            if here and here[0].age >= kept.age:
                break
            path = self._fetch(claim, kept)
            if path is not None:
                self._say_resumed(claim, path, kept.number, "storage")
                return Resumed(path, last)
        if here:
            self._say_resumed(claim, here[0].path, here[0].number, "this box")
            return Resumed(here[0].path, last)
        return Resumed(None, last)

    def request(self, held: Held, digest: str, resumed: Resumed) -> StateRequest:
        """Return what the child is told: where to save, and what it goes on from. Older states here are removed."""
        claim = held.claim
        memory, disk = self._folders.of_attempt(claim)
        self._folders.keep_only(claim.job_id, [resumed.path] if resumed.path is not None else [])
        about = {"job": claim.job_id, "fence": str(claim.fence), "stage": claim.stage, "digest": digest}
        return StateRequest(memory, disk, about, resumed.number + 1, resumed.path, self._listener(held, digest))

    def settle(self, held: Held, cause: Cause) -> None:
        """An attempt has ended here, and the queue is about to be told: first let its last state get away."""
        if self._flusher is None or cause in _NO_MORE or held.state is None:
            return
        attempt = (held.claim.job_id, held.claim.fence.number)
        until = time.monotonic() + FLUSH_PATIENCE_S
        if self._until is not None:
            until = min(until, self._until)
        if not self._flusher.wait(attempt, until):
            kept = self._flusher.flushed(attempt)
            self._journal.say(
                "state-left-behind",
                job=held.claim.job_id,
                number=held.state,
                kept=kept if kept is not None else "an earlier one, if any",
                reason="it was not flushed in time",
            )

    def let_go(self, held: Held) -> None:
        """The attempt is over; its states stay for the next one."""
        if self._flusher is not None:
            self._flusher.forget((held.claim.job_id, held.claim.fence.number))
        with self._lock:
            used = self._used.pop(held, None)
        if used is not None:
            used.close()

    def forget(self, job_id: str) -> None:
        """The stage is over: nobody goes on from its states."""
        self._folders.forget(job_id)

    def sweep(self, wanted: Callable[[Sequence[str]], Sequence[str]]) -> None:
        """Remove what no attempt will go on from. Raises as `wanted`."""
        swept = self._folders.sweep(wanted)
        if swept:
            self._journal.say("states-swept", jobs=swept)

    def close(self) -> None:
        """Let go of the flusher, which finishes what it has."""
        if self._flusher is not None:
            self._flusher.stop()
        self._folders.close()

    def _listener(self, held: Held, digest: str) -> Callable[[SavedState], None]:
        claim = held.claim

        def saved(state: SavedState) -> None:
            if state.path is None:
                self._journal.say("state-not-saved", job=claim.job_id, number=state.number, reason=state.why)
                return
            if not state.in_memory:
                self._journal.say_once(
                    f"state {claim.job_id}", "state-on-disk", job=claim.job_id, bytes=state.size_bytes, reason=state.why
                )
            held.saved(state.number)
            if self._flusher is not None:
                order = FlushOrder(claim.job_id, claim.fence, claim.created_at, digest, state.number, state.path)
                self._flusher.flush(order)

        return saved

    def _fetch(self, claim: Claim, kept: KeptState) -> Path | None:
        """Bring a state from the store; None where it is not there, or not what was kept."""
        place = self._folders.place_of(claim.job_id, kept.fence, kept.number, in_memory=True)
        disk = self._folders.place_of(claim.job_id, kept.fence, kept.number, in_memory=False)
        if place != disk and not self._folders.make_room(place, kept.size_bytes):
            place = disk
        try:
            try:
                self._files.fetch(kept.key, place)
            except NoSpace:
                place = disk
                self._files.fetch(kept.key, place)
            problem = _problem(place, kept, claim)
        except NotFound as error:
            problem = str(error)
        if not problem:
            return place
        place.unlink(missing_ok=True)
        self._journal.say("state-damaged", job=claim.job_id, number=kept.number, key=kept.key, reason=problem)
        return None

    def _say_resumed(self, claim: Claim, path: Path, number: int, where: str) -> None:
        self._journal.say(
            "state-found",
            job=claim.job_id,
            attempt=claim.attempt,
            number=number,
            where=where,
            bytes=path.stat().st_size,
        )


def _problem(path: Path, kept: KeptState, claim: Claim) -> str:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != kept.sha256:
        return f"its sha256 is {found}, {kept.sha256} was kept"
    try:
        about = read_about(path)
    except (TornState, ValueError) as error:
        return str(error)
    return "" if about.get("job") == claim.job_id else "it is of another job"
