"""One attempt on this box: inputs in, the stage in the child, outputs and log out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from modelrepo.errors import Corrupt, InvalidInput, ModelRepoError, NotFound, Unreachable
from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome, OutputFile
from modelrepo_runtime.pool.entry_files import Attached
from modelrepo_runtime.supervision.spec import AdapterPath, ChildOutcome, JobRequest, MemoryPeaks, OutputPath
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.adapters import AdapterCache
from modelrepo_runtime.worker.calling import Runs, run_all
from modelrepo_runtime.worker.ends import Brought, Ended, early, failed
from modelrepo_runtime.worker.handover import Handovers
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.measured import memory_of
from modelrepo_runtime.worker.pace import Pace
from modelrepo_runtime.worker.states import Resumed, States


class Files(Protocol):
    """The part of the JobStore that an attempt uses."""

    def fetch(self, key: str, target: Path) -> object: ...

    def put_output(
        self, job_id: str, created_at: float, fence: Fence, name: str, path: Path, content_type: str | None = None
    ) -> OutputFile: ...

    def put_log(self, job_id: str, created_at: float, fence: Fence, path: Path) -> str: ...


class Attempts:
    """Runs a slot's attempts. `handovers` and `states` are shared by all slots of the box.

    The next stage, and the next attempt, may run in another.
    """

    def __init__(
        self,
        folder: Path,
        handovers: Handovers,
        files: Files,
        timing: Timing,
        journal: Journal,
        states: States | None = None,
        adapters: AdapterCache | None = None,
        room: MemoryRoom = ANY_ROOM,
    ) -> None:
        """`states` None: what stages save is kept nowhere. `adapters` may be None where no job has any.

        `room`: the memory that the slot has.
        """
        self._folder, self._handovers, self._states = folder, handovers, states
        self._adapters, self._holds = adapters, dict[Held, list[Attached]]()
        self._files, self._timing, self._journal, self._room = files, timing, journal, room
        self.pace = Pace()

    def run(
        self,
        held: Held,
        child: Runs,
        *,
        slot: str,
        digest: str,
        content_types: Mapping[str, str],
        brought: Brought | Ended | None = None,
    ) -> Ended:
        """Run an attempt to its end, whatever that is. The files of it on this box are gone when this returns.

        `digest`: of the manifest of the version that `child` runs.
        """
        known = {held: brought} if brought is not None else {}
        (ended,) = self.run_batch([held], child, slot=slot, digest=digest, content_types=content_types, brought=known)
        return ended

    def run_batch(
        self,
        batch: Sequence[Held],
        child: Runs,
        *,
        slot: str,
        digest: str,
        content_types: Mapping[str, str],
        brought: Mapping[Held, Brought | Ended] = MappingProxyType({}),
    ) -> list[Ended]:
        """Run attempts at one stage in one call, each to an end of its own."""
        began = time.monotonic()
        ended: dict[Held, Ended] = {}
        requests: list[tuple[Held, JobRequest]] = []
        try:
            for held in batch:
                found = brought[held] if held in brought else self.bring(held, slot=slot, digest=digest)
                if isinstance(found, Ended):
                    ended[held] = found
                else:
                    requests.append((held, self._request(held, found, digest)))
            outcomes = run_all(child, requests, self._timing.cancel_grace_s)
            for (held, request), outcome in zip(requests, outcomes, strict=True):
                took_s = time.monotonic() - began
                if isinstance(outcome, ChildOutcome):
                    if len(requests) > 1:  # whose memory it was, nobody can tell
                        outcome = replace(outcome, memory=MemoryPeaks())
                    outcome = self._conclude(held, outcome, request.log_path, content_types, slot, took_s)
                ended[held] = outcome
                if self._states is not None:
                    self._states.settle(held, outcome.cause)
            return [ended[held] for held in batch]
        finally:
            for held in batch:
                self.let_go(held)

    def bring(self, held: Held, *, slot: str, digest: str) -> Brought | Ended:
        """Fetch what an attempt needs; `let_go` removes it again."""
        claim, began = held.claim, time.monotonic()
        try:
            files = self._fetch(held, self._folder_of(held))
            resumed = Resumed() if self._states is None else self._states.bring(held, digest)
        except NotFound as error:
            return failed(Cause.REJECTED, "input_missing", error)
        except (Unreachable, OSError) as error:
            return self._not_at_hand(held, slot, error)
        try:
            adapters = self._bring_adapters(held)
        except NotFound as error:
            return failed(Cause.REJECTED, "adapter_missing", error)
        except Corrupt as error:
            return failed(Cause.REJECTED, "adapter_mismatch", error)
        except (Unreachable, OSError) as error:
            return self._not_at_hand(held, slot, error)
        took_s = time.monotonic() - began
        self.pace.fetched(claim, took_s)
        return Brought(files, took_s, resumed, adapters)

    def _not_at_hand(self, held: Held, slot: str, error: Exception) -> Ended:
        self._journal.say("inputs-unavailable", slot=slot, job=held.claim.job_id, error=error)
        return Ended(Cause.LOAD_FAILED)

    def let_go(self, held: Held) -> None:
        """Remove the files of an attempt from this box; its adapters stay in their cache."""
        for hold in self._holds.pop(held, ()):
            hold.release()
        shutil.rmtree(self._folder_of(held), ignore_errors=True)
        if self._states is not None:
            self._states.let_go(held)

    def _folder_of(self, held: Held) -> Path:
        return self._folder / f"{held.claim.job_id}-{held.claim.fence.number}"

    def _request(self, held: Held, brought: Brought, digest: str) -> JobRequest:
        claim, folder = held.claim, self._folder_of(held)
        return JobRequest(
            job_id=claim.job_id,
            attempt=claim.attempt,
            stage=claim.stage,
            inputs=claim.inputs,
            files=brought.files,
            adapters=brought.adapters,
            previous=claim.previous,
            handover_dir=self._handovers.folder_of(claim.job_id),
            output_dir=folder / "outputs",
            state=None if self._states is None else self._states.request(held, digest, brought.resumed),
            log_path=folder / "job.log",
        )

    def forget_job(self, claim: Claim) -> None:
        """The job has ended: what its stages handed over is not needed any more."""
        self._handovers.forget(claim.job_id, claim.handover)
        self.forget_states(claim)

    def forget_states(self, claim: Claim) -> None:
        """The stage is over: what it has saved is not needed any more."""
        if self._states is not None:
            self._states.forget(claim.job_id)

    def _fetch(self, held: Held, folder: Path) -> dict[str, Path]:
        self._handovers.bring(held.claim)
        files: dict[str, Path] = {}
        for place, (name, key) in enumerate(held.claim.files.items()):
            target = folder / "inputs" / str(place) / Path(key).name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.fetch(key, target)
            files[name] = target
        return files

    def _bring_adapters(self, held: Held) -> tuple[AdapterPath, ...]:
        holds, shown = self._holds.setdefault(held, []), list[AdapterPath]()
        for place, adapter in enumerate(held.claim.adapters):
            assert self._adapters is not None, "a box that serves jobs with adapters has a cache for them"
            try:
                kept = self._adapters.bring(adapter, self._folder_of(held) / "adapters" / str(place))
            except (NotFound, Corrupt) as error:
                raise type(error)(f"adapter {place} ({adapter.ref or adapter.name}): {error}") from error
            if kept.hold is not None:
                holds.append(kept.hold)
            shown.append(kept.shown)
        return tuple(shown)

    def _conclude(
        self, held: Held, outcome: ChildOutcome, log: Path, content_types: Mapping[str, str], slot: str, took_s: float
    ) -> Ended:
        why = held.ended
        if why is End.LOST or (why is End.PREEMPTED and outcome.cause is not Cause.SUCCEEDED):
            return early(why)
        if outcome.cause is Cause.PREEMPTED:
            return Ended(Cause.PREEMPTED)
        log_key = self._keep_log(held, log, slot)
        try:
            succeeded = outcome.cause is Cause.SUCCEEDED
            outputs = self._keep_outputs(held, outcome.outputs, content_types) if succeeded else ()
            handed = self._handovers.keep(held.claim) if succeeded and not held.claim.last_stage else ()
        except InvalidInput as error:
            return failed(Cause.EXCEPTION, "output_too_large", error, log_key, outcome.runtime_s)
        except (Unreachable, OSError) as error:
            self._journal.say("outputs-not-kept", slot=slot, job=held.claim.job_id, error=error, after_s=took_s)
            return Ended(Cause.LOAD_FAILED)
        if succeeded:
            self.pace.ran(held.claim, outcome.runtime_s)
        told = Outcome(
            outcome.cause,
            outcome.result,
            outputs,
            outcome.error,
            log_key,
            counted=outcome.counted,
            runtime_s=outcome.runtime_s,
            cluster_bound=self._handovers.cluster_bound and bool(handed),
            handover=handed,
            memory=memory_of(outcome, self._room),
        )
        return Ended(outcome.cause, told)

    def _keep_outputs(
        self, held: Held, outputs: tuple[OutputPath, ...], content_types: Mapping[str, str]
    ) -> tuple[OutputFile, ...]:
        claim = held.claim
        return tuple(
            self._files.put_output(
                claim.job_id,
                claim.created_at,
                claim.fence,
                output.name,
                output.path,
                content_types.get(output.name, output.content_type),
            )
            for output in outputs
        )

    def _keep_log(self, held: Held, log: Path, slot: str) -> str | None:
        claim = held.claim
        try:
            if not log.exists() or log.stat().st_size == 0:
                return None
            return self._files.put_log(claim.job_id, claim.created_at, claim.fence, log)
        except (ModelRepoError, OSError) as error:
            self._journal.say("log-not-kept", slot=slot, job=claim.job_id, error=error)
            return None
