"""From what a user wants to what the queue takes: inputs checked by the model's schema, files kept."""

from __future__ import annotations

import mimetypes
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from modelrepo.errors import InvalidInput, InvalidJobInput, NotFound, Unreachable
from modelrepo_runtime.job_adapters import AdapterKeeper, Whose, read_wanted
from modelrepo_runtime.jobs import Json, Submission, Webhook, id_time, new_id, stored_keys
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.model_specs import ModelSpecs

if TYPE_CHECKING:
    from modelrepo.adapters.published import Adapters
    from modelrepo.contract.spec import ModelSpec

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as it came from a URL."""

    path: Path
    size_bytes: int
    content_type: str | None


Fetch: TypeAlias = Callable[[str, Path], Fetched]
"""Copies what a URL names to a file in a folder."""


def _any_upload(_: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a submission says beside model and inputs; see `Client.submit`."""

    tier: str | None = None
    tenant: str | None = None
    version: str | None = None
    deadline: float | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    webhook: Webhook | None = None
    adapters: Sequence[Mapping[str, Any]] = ()
    may_name: Callable[[str], bool] = _any_upload
    """Whether an upload's id is one that whoever submits may name."""


class Submissions:
    """Makes submissions. May be shared by threads."""

    def __init__(
        self,
        specs: ModelSpecs,
        files: Callable[[], JobStore],
        fetch: Fetch | None = None,
        published: Callable[[], Adapters] | None = None,
    ) -> None:
        """`published`: where adapters of the team are looked for."""
        self._specs, self._files, self._fetch = specs, files, fetch or _fetch
        self._adapters = AdapterKeeper(files, published or _no_repository, self._fetch)

    def prepare(self, model: str, inputs: Mapping[str, Any], wanted: Wanted) -> Submission:
        """Check inputs and keep their files; return what the queue takes. One that it then refuses wants `drop`.

        Raises as `Client.submit`.
        """
        from modelrepo.contract import inputs as contract_inputs
        from modelrepo_runtime.plans import plan_of

        named, spec = self._specs.find(model, wanted.version)
        values = contract_inputs.check(spec, dict(inputs))
        wanted_adapters = read_wanted(wanted.adapters)
        job_id, now = new_id("job"), time.time()
        files: dict[str, str] = {}
        tenant = wanted.tenant or DEFAULT_TENANT
        try:
            for name in contract_inputs.file_inputs(spec):
                given = values.get(name)
                if isinstance(given, Mapping):
                    values[name], files[name] = self._name_upload(spec, name, given, wanted)
                elif given is not None:
                    values[name], files[name] = self._keep(spec, job_id, now, name, given)
            adapters = self._adapters.keep(wanted_adapters, Whose(job_id, now, tenant, wanted.may_name))
        except Exception:
            if files or wanted_adapters:
                self._files().delete_job(job_id, now)
            raise
        return Submission(
            model=model,
            inputs=values,
            stages=plan_of(spec),
            tier=wanted.tier,
            tenant=tenant,
            version=named if wanted.version is not None else None,
            deadline=wanted.deadline,
            metadata=dict(wanted.metadata),
            files=files,
            job_id=job_id,
            size=contract_inputs.size_class(spec, values),
            webhook=wanted.webhook,
            adapters=adapters,
        )

    def is_at_hand(self, model: str, version: str | None, inputs: Mapping[str, Any]) -> bool:
        """Say whether `prepare` would ask no repository and move no file now."""
        from modelrepo.contract import inputs as contract_inputs

        known = self._specs.at_hand(model, version)
        return known is not None and not any(name in inputs for name in contract_inputs.file_inputs(known[1]))

    def drop(self, submission: Submission) -> None:
        """Delete the files of a submission that did not become a job."""
        if submission.job_id is not None and stored_keys(submission.files, submission.adapters):
            self._files().delete_job(submission.job_id, id_time(submission.job_id))

    def _name_upload(
        self, spec: ModelSpec, name: str, given: Mapping[str, Any], wanted: Wanted
    ) -> tuple[dict[str, str], str]:
        from modelrepo.contract import inputs as contract_inputs

        file_id = given["file"]
        try:
            if not wanted.may_name(file_id):  # in the words that it would be answered with if there were none
                raise NotFound(f"no uploaded file {file_id}; upload it again")
            found = self._files().stat_upload(file_id)
        except NotFound as error:
            raise InvalidJobInput(f"inputs of {spec.name}: /{name}: {error}", pointer=f"/{name}") from error
        kind, _ = mimetypes.guess_type(PurePosixPath(found.key).name)
        contract_inputs.check_file(spec, name, size_bytes=found.size_bytes, content_type=kind)
        return {"file": file_id}, found.key

    def _keep(
        self, spec: ModelSpec, job_id: str, created_at: float, name: str, value: Any
    ) -> tuple[dict[str, str], str]:
        if isinstance(value, str):
            with tempfile.TemporaryDirectory(prefix="modelrepo-input-") as folder:
                path = _download(spec, name, value, Path(folder), self._fetch)
                return {"file": path.name}, self._files().put_input(job_id, created_at, name, path)
        path = Path(value)
        return {"file": path.name}, self._files().put_input(job_id, created_at, name, path)


def _no_repository() -> Adapters:
    raise InvalidInput("no repository is known here that could publish adapters; hand it over as a file")


def _download(spec: ModelSpec, name: str, url: str, folder: Path, fetch: Fetch) -> Path:
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
