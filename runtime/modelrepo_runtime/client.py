"""Submit jobs and follow them, on this box's queue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, cast

from modelrepo.errors import InvalidActiveFile, InvalidInput, NotFound, Unreachable, VersionDeleted, VersionNotFound
from modelrepo_runtime.jobs import Job, Json, Status, Webhook
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.model_specs import ModelSpecs
from modelrepo_runtime.queue.opening import default_files_url, default_queue_url, is_gateway, open_queue
from modelrepo_runtime.queue.port import Deleted, JobFilter, JobQueue
from modelrepo_runtime.submissions import Fetch, Submissions, Wanted
from modelrepo_runtime.timing import Timing

if TYPE_CHECKING:
    from modelrepo.repository import Repository

LONGEST_WAIT_S = 24 * 3600.0


class JobObject(TypedDict):
    """A job as the API shows it."""

    id: str
    model: str
    version: str | None
    tier: str
    tenant: str
    status: str
    stage: str | None
    progress: float | None
    message: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    eta: dict[str, str] | None
    queue: dict[str, float | None] | None
    result: Json
    outputs: list[dict[str, Json]]
    error: dict[str, Json] | None
    metadata: dict[str, Json]


class Client:
    """A client of one repository, queue and file store; may be shared by threads.

    Each is a URL, or found as commands do: environment, then the nearest modelrepo.toml, then the user's own queue with
    its files beside it. Where the first URL, or the queue's, is a gateway's (`https://..`), all goes through that.
    """

    def __new__(cls, repo: object = None, queue: object = None, *_: object, **__: object) -> Self:
        if cls is Client:
            from modelrepo_runtime.http_client import HttpClient

            named = queue if hasattr(queue, "submit") else default_queue_url(cast("str | None", queue))
            if any(isinstance(url, str) and is_gateway(url) for url in (repo, named)):
                return super().__new__(cast("type[Self]", HttpClient))
        return super().__new__(cls)

    def __init__(
        self,
        repo: str | Repository | None = None,
        queue: str | JobQueue | None = None,
        files: str | JobStore | None = None,
        *,
        timing: Timing | None = None,
        fetch: Fetch | None = None,
        token: str | None = None,  # noqa: ARG002 - a gateway's
    ) -> None:
        self._repo = repo
        self._owns_queue = not hasattr(queue, "submit")
        self.queue: JobQueue = (
            open_queue(default_queue_url(cast("str | None", queue)), timing)
            if self._owns_queue
            else cast(JobQueue, queue)
        )
        self._files = files
        poll_s = (timing or Timing.embedded()).active_poll_local_s
        self._specs = ModelSpecs(self._repository, poll_s)
        self.submissions = Submissions(self._specs, lambda: self.files, fetch, lambda: self._repository().adapters)

    @cached_property
    def files(self) -> JobStore:
        """Where files of jobs lie, looked for when it is first asked for. Raises: InvalidInput where nobody says."""
        told = self._files
        return told if isinstance(told, JobStore) else JobStore(default_files_url(self.queue.url, told))

    def submit(
        self,
        model: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        tier: str | None = None,
        tenant: str | None = None,
        version: str | None = None,
        deadline: float | None = None,
        metadata: Mapping[str, Json] | None = None,
        webhook: Webhook | None = None,
        adapters: Sequence[Mapping[str, Any]] = (),
        idempotency_key: str | None = None,
    ) -> JobObject:
        """Check the inputs against the model's schema and queue a job.

        An input of `format: file` may be a path, `{"file": id}` of an `upload`, or an https URL. `deadline` is in epoch
        seconds. Each of `adapters`, up to 8, has one of `url`, `file` (a path, or the id of an `upload`) and `ref`
        (`NAME@VERSION`), and may have `sha256` (a `url` must) and `weight`.
        Raises: ModelNotFound, VersionNotFound, InvalidJobInput, InvalidAdapter, InvalidInput, Unreachable.
        """
        wanted = Wanted(tier, tenant, version, deadline, metadata or {}, webhook, adapters)
        return self._submit(model, inputs or {}, wanted, idempotency_key)

    def _submit(self, model: str, inputs: Mapping[str, Any], wanted: Wanted, key: str | None) -> JobObject:
        submission = self.submissions.prepare(model, inputs, wanted)
        try:
            job = self.queue.submit(submission, idempotency_key=key)
        except Unreachable:
            raise  # it may have become a job all the same; files that no job has go by age
        except Exception:
            self.submissions.drop(submission)
            raise
        if job.id != submission.job_id:
            self.submissions.drop(submission)
        return self._show(job)

    def get(self, job_id: str) -> JobObject:
        """Return a job as it is now. Raises: JobNotFound."""
        return self._show(self.queue.get(job_id))

    def list(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        tier: str | None = None,
        tenant: str | None = None,
        older_than_s: float | None = None,
        limit: int = 100,
    ) -> tuple[JobObject, ...]:
        """Return matching jobs, newest first."""
        return self._list(JobFilter(_status(status), model, tier, tenant, older_than_s, limit))

    def _list(self, where: JobFilter) -> tuple[JobObject, ...]:
        return tuple(self._show(job) for job in self.queue.list(where))

    def wait(self, job_id: str, timeout_s: float = LONGEST_WAIT_S) -> JobObject:
        """Return the job once it has ended, or as it is when the time is over. Raises: JobNotFound."""
        until = time.monotonic() + timeout_s
        waiter = self.queue.waiter(jobs=[job_id])
        try:
            while True:
                job = self.queue.get(job_id)
                left = until - time.monotonic()
                if job.status.ended or left <= 0:
                    return self._show(job)
                waiter.wait(left)
        finally:
            waiter.close()

    def events(self, job_id: str, timeout_s: float = LONGEST_WAIT_S) -> Iterator[JobObject]:
        """Yield the job now and after each change of status, stage or progress, until it has ended."""
        until = time.monotonic() + timeout_s
        waiter = self.queue.waiter(jobs=[job_id])
        seen: object = None
        try:
            while True:
                job = self.queue.get(job_id)
                now = (job.status, job.stage, job.attempt, job.progress, job.message, job.cancel_requested)
                if now != seen:
                    seen = now
                    yield self._show(job)
                left = until - time.monotonic()
                if job.status.ended or left <= 0:
                    return
                waiter.wait(left)
        finally:
            waiter.close()

    def cancel(self, job_id: str) -> JobObject:
        """End a queued job; ask a running one to stop. Raises: JobNotFound."""
        return self._show(self.queue.cancel(job_id))

    def delete(self, job_id: str) -> None:
        """Forget a job with its payload and files. Raises: JobNotFound; Conflict while it runs."""
        self.forget(self.queue.delete(job_id))

    def forget(self, deleted: Deleted) -> None:
        """Delete the files of a job that the queue has deleted."""
        self.files.delete_job(deleted.job_id, deleted.created_at)
        for key in deleted.files:
            self.files.delete(key)

    def upload(self, path: str | os.PathLike[str]) -> str:
        """Keep a file for later submissions; return its id, to be given as `{"file": id}`."""
        return self.files.put_upload(Path(path))

    def log(self, job_id: str) -> str:
        """Return what the last ended attempt at a job printed; empty where nothing is kept. Raises: JobNotFound."""
        return self.log_of(self.queue.get(job_id))

    def log_of(self, job: Job) -> str:
        """Return the same of a job that is at hand."""
        key = job.log_key
        try:
            return self.files.read(key).decode("utf-8", "replace") if key else ""
        except NotFound:
            return ""

    def models(self) -> tuple[dict[str, Json], ...]:
        """Return name, active version, and input and output schema of every model that has one."""
        found: list[dict[str, Json]] = []
        for model in self._repository().models():
            with suppress(InvalidActiveFile, VersionDeleted, VersionNotFound):
                found.append(self.model(model))
        return tuple(found)

    def model(self, name: str, version: str | None = None) -> dict[str, Json]:
        """Return the same of one model. Raises: ModelNotFound; VersionNotFound, also where none is active."""
        named, spec = self._specs.find(name, version)
        return {"name": name, "version": named, "inputs": spec.inputs, "outputs": dict(spec.outputs)}

    def schemas(self, model: str, version: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Return the schema of each input of a model; the active version's unless one is named."""
        return dict(self._specs.find(model, version)[1].inputs or {})

    def close(self) -> None:
        """Let go of the queue where the client opened it; closing twice is legal."""
        if self._owns_queue:
            self.queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def repository(self) -> Repository:
        """The repository, opened when it is first asked for. Raises: InvalidInput where none is named."""
        return self._repository()

    def _repository(self) -> Repository:
        from modelrepo.repository import Repository
        from modelrepo.settings import repository_url

        if self._repo is None or isinstance(self._repo, str):
            self._repo = Repository.open(repository_url(self._repo))
        return self._repo

    def _show(self, job: Job) -> JobObject:
        places: dict[str, tuple[str | None, float | None]] = {}
        with suppress(InvalidInput):  # who only looks at jobs need not say where their files lie
            places = {output.key: self.files.place(output.key) for output in job.outputs}
        return cast(JobObject, job.to_json(places))


def _status(text: str | None) -> Status | None:
    try:
        return None if text is None else Status(text)
    except ValueError as error:
        known = ", ".join(status.value for status in Status)
        raise InvalidInput(f"no job has the status {text!a}; there are {known}") from error
