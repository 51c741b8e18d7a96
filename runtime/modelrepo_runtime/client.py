"""Submit jobs and follow them, on this box's queue."""

from __future__ import annotations

import mimetypes
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, cast

from modelrepo.errors import (
    InvalidActiveFile,
    InvalidInput,
    InvalidJobInput,
    NotFound,
    Unreachable,
    VersionDeleted,
    VersionNotFound,
)
from modelrepo_runtime.jobs import Job, Json, Status, Submission, Webhook, id_time, new_id
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.opening import default_files_url, default_queue_url, is_gateway, open_queue
from modelrepo_runtime.queue.port import Deleted, JobFilter, JobQueue
from modelrepo_runtime.timing import Timing

if TYPE_CHECKING:
    from modelrepo.contract.spec import ModelSpec
    from modelrepo.repository import Repository
    from modelrepo.versions.version import Version

LONGEST_WAIT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as it came from a URL."""

    path: Path
    size_bytes: int
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a submission says beside model and inputs; see `Client.submit`."""

    tier: str | None = None
    tenant: str = "default"
    version: str | None = None
    deadline: float | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    webhook: Webhook | None = None


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
        fetch: Callable[[str, Path], Fetched] | None = None,
        token: str | None = None,  # noqa: ARG002 - a gateway's
    ) -> None:
        self._repo = repo
        self._fetch = fetch or _fetch
        self._timing = timing or Timing.embedded()
        self._owns_queue = not hasattr(queue, "submit")
        self.queue: JobQueue = (
            open_queue(default_queue_url(cast("str | None", queue)), timing)
            if self._owns_queue
            else cast(JobQueue, queue)
        )
        self._files = files
        self._specs: dict[tuple[str, str], ModelSpec] = {}
        self._active: dict[str, tuple[str, float]] = {}

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
        idempotency_key: str | None = None,
    ) -> JobObject:
        """Check the inputs against the model's schema and queue a job.

        An input of `format: file` may be a path, `{"file": id}` of an `upload`, or an https URL. `deadline` is in epoch
        seconds. Raises: ModelNotFound, VersionNotFound, InvalidJobInput, InvalidInput, Unreachable.
        """
        wanted = Wanted(tier, tenant or "default", version, deadline, metadata or {}, webhook)
        submission = self.prepare(model, inputs or {}, wanted)
        try:
            job = self.queue.submit(submission, idempotency_key=idempotency_key)
        except Unreachable:
            raise  # it may have become a job all the same; files that no job has go by age
        except Exception:
            self.drop(submission)
            raise
        if job.id != submission.job_id:
            self.drop(submission)
        return self._show(job)

    def prepare(self, model: str, inputs: Mapping[str, Any], wanted: Wanted) -> Submission:
        """Check inputs and keep their files; return what the queue takes. One that it then refuses wants `drop`.

        Raises as `submit`.
        """
        from modelrepo.contract import inputs as contract_inputs
        from modelrepo_runtime.plans import plan_of

        named, spec = self._spec(model, wanted.version)
        values = contract_inputs.check(spec, dict(inputs))
        job_id, now = new_id("job"), time.time()
        files: dict[str, str] = {}
        try:
            for name in contract_inputs.file_inputs(spec):
                if values.get(name) is not None:
                    values[name], files[name] = self._keep_input(spec, job_id, now, name, values[name])
        except Exception:
            self._drop_inputs(job_id, now, files)
            raise
        return Submission(
            model=model,
            inputs=values,
            stages=plan_of(spec),
            tier=wanted.tier,
            tenant=wanted.tenant,
            version=named if wanted.version is not None else None,
            deadline=wanted.deadline,
            metadata=dict(wanted.metadata),
            files=files,
            job_id=job_id,
            size=contract_inputs.size_class(spec, values),
            webhook=wanted.webhook,
        )

    def is_at_hand(self, model: str, version: str | None, inputs: Mapping[str, Any]) -> bool:
        """Say whether `prepare` would ask no repository and move no file now."""
        from modelrepo.contract import inputs as contract_inputs

        if version is None:
            version, at = self._active.get(model, ("", float("-inf")))
            if time.monotonic() - at >= self._timing.active_poll_local_s:
                return False
        spec = self._specs.get((model, version))
        return spec is not None and not any(name in inputs for name in contract_inputs.file_inputs(spec))

    def drop(self, submission: Submission) -> None:
        """Delete the files of a submission that did not become a job."""
        if submission.files and submission.job_id is not None:
            self._drop_inputs(submission.job_id, id_time(submission.job_id), submission.files)

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
        where = JobFilter(Status(status) if status else None, model, tier, tenant, older_than_s, limit)
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
        named, spec = self._spec(name, version)
        return {"name": name, "version": named, "inputs": spec.inputs, "outputs": dict(spec.outputs)}

    def schemas(self, model: str, version: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Return the schema of each input of a model; the active version's unless one is named."""
        return dict(self._spec(model, version)[1].inputs or {})

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

    def _spec(self, model: str, version: str | None) -> tuple[str, ModelSpec]:
        """Return the version that a job would run as now, and its spec; it may be a poll interval old."""
        if version is None:
            known, at = self._active.get(model, ("", float("-inf")))
            if time.monotonic() - at < self._timing.active_poll_local_s:
                return known, self._specs[model, known]
        if version is not None and (model, version) in self._specs:
            return version, self._specs[model, version]
        found = self._live(model) if version is None else self._repository().resolve(f"{model}@{version}")
        self._specs[model, found.version] = found.spec
        if version is None:
            self._active[model] = (found.version, time.monotonic())
        return found.version, found.spec

    def _live(self, model: str) -> Version:
        """Return the active version, or the one before a hand edit that no worker can follow: they serve on as well."""
        from modelrepo.promotion.history import ACTIVATING

        repository = self._repository()
        try:
            return repository.resolve(model)
        except (InvalidActiveFile, VersionDeleted, VersionNotFound):
            for entry in reversed(repository.promotions.history(model)):
                if entry.kind in ACTIVATING:
                    with suppress(VersionDeleted, VersionNotFound):
                        return repository.resolve(f"{model}@{entry.version}")
            raise

    def _keep_input(
        self, spec: ModelSpec, job_id: str, created_at: float, name: str, value: Any
    ) -> tuple[dict[str, str], str]:
        from modelrepo.contract import inputs as contract_inputs

        if isinstance(value, Mapping):
            try:
                found = self.files.stat_upload(value["file"])
            except NotFound as error:
                raise InvalidJobInput(f"inputs of {spec.name}: /{name}: {error}", pointer=f"/{name}") from error
            kind, _ = mimetypes.guess_type(PurePosixPath(found.key).name)
            contract_inputs.check_file(spec, name, size_bytes=found.size_bytes, content_type=kind)
            return {"file": value["file"]}, found.key
        if isinstance(value, str):
            with tempfile.TemporaryDirectory(prefix="modelrepo-input-") as folder:
                path = _download(spec, name, value, Path(folder), self._fetch)
                return {"file": path.name}, self.files.put_input(job_id, created_at, name, path)
        path = Path(value)
        return {"file": path.name}, self.files.put_input(job_id, created_at, name, path)

    def _drop_inputs(self, job_id: str, created_at: float, files: Mapping[str, str]) -> None:
        if files:
            self.files.delete_job(job_id, created_at)

    def _show(self, job: Job) -> JobObject:
        places: dict[str, tuple[str | None, float | None]] = {}
        with suppress(InvalidInput):  # who only looks at jobs need not say where their files lie
            places = {output.key: self.files.place(output.key) for output in job.outputs}
        return cast(JobObject, job.to_json(places))


def _download(spec: ModelSpec, name: str, url: str, folder: Path, fetch: Callable[[str, Path], Fetched]) -> Path:
    from modelrepo.contract import inputs as contract_inputs

    try:
        fetched = fetch(url, folder)
    except InvalidInput as error:
        raise InvalidJobInput(f"inputs of {spec.name}: /{name}: {error}", pointer=f"/{name}") from error
    contract_inputs.check_file(spec, name, size_bytes=fetched.size_bytes, content_type=fetched.content_type)
    return fetched.path


def _fetch(url: str, folder: Path) -> Fetched:
    path = folder / (Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)).name or "file")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, 2**20)
            kind = answer.headers.get_content_type()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unreachable(f"cannot fetch {url}: {error}") from error
    return Fetched(path, path.stat().st_size, kind)
