"""How a box reaches what it works for: repository, queue and files by addresses of their own, or all by a gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelrepo.repository import Repository
from modelrepo.settings import repository_url
from modelrepo.stores.founding import open_founded
from modelrepo.stores.mirrored import mirrored, open_mirrors
from modelrepo.stores.retrying import retrying
from modelrepo_runtime.jobs import Status
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.demand import LaneDemand, lane_demands
from modelrepo_runtime.queue.http.calls import Welcome
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.opening import default_files_url, default_queue_url, is_gateway, open_queue
from modelrepo_runtime.queue.port import JobFilter, JobQueue
from modelrepo_runtime.remote.file_store import FileStore
from modelrepo_runtime.remote.repository_store import RepositoryStore
from modelrepo_runtime.remote.talk import Talk, find_token
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.flush_messages import Address
from modelrepo_runtime.worker.settings import WorkerSettings

MOST_WAITING = 1000


@dataclass(frozen=True, slots=True)
class Reach:
    """What a worker works for. `gateway` is set where it stands between: it then reaps, sweeps and looks for us."""

    repository: Repository
    queue: JobQueue
    files: JobStore
    timing: Timing
    cluster: str
    gateway: HttpQueue | None = None
    models: tuple[str, ...] = ()
    """What our token may serve; empty: everything."""

    def waiting(self, models: Sequence[str]) -> Mapping[str, int]:
        """Count the jobs that wait for each model, up to a thousand."""
        if self.gateway is not None:
            return {model: one.waiting for model, one in self.gateway.standing(models).items()}
        where = (JobFilter(status=Status.QUEUED, model=model, limit=MOST_WAITING) for model in models)
        return {model: len(self.queue.list(one)) for model, one in zip(models, where, strict=True)}

    def demand(self, models: Sequence[str]) -> Mapping[str, tuple[LaneDemand, ...]]:
        """Say what waits for each model, lane by lane."""
        if self.gateway is not None:
            return self.gateway.demand(models)
        return {model: lane_demands(self.queue.queue_report(model)) for model in models}

    def slots(self, model: str) -> int:
        """Count the live slots of the whole fleet that serve a model's stages on accelerators."""
        if self.gateway is not None:
            return self.gateway.standing([model])[model].slots
        return self.queue.slots_serving(model)


def flush_address(settings: WorkerSettings) -> Address | None:
    """Return how another process of this box reaches queue and files; None where only this process can."""
    queue_url = default_queue_url(settings.queue)
    if queue_url.startswith("memory://"):
        return None
    if is_gateway(queue_url):
        return Address(queue_url, settings.files, find_token(settings.token_file))
    return Address(queue_url, default_files_url(queue_url, settings.files))


def reach(settings: WorkerSettings, timing: Timing | None, say: Callable[[str], None]) -> Reach:
    """Open repository, queue and files.

    Raises: InvalidInput, NotFound, Unreachable; Forbidden for a token that a gateway refuses.
    """
    queue_url = default_queue_url(settings.queue)
    mirrors = open_mirrors(settings.object_mirror, say)
    if not is_gateway(queue_url):
        timing = timing or Timing.embedded()
        return Reach(
            Repository.open(repository_url(settings.repo), mirrors=mirrors),
            open_queue(queue_url, timing),
            JobStore(default_files_url(queue_url, settings.files)),
            timing,
            settings.cluster,
        )
    talk = Talk(queue_url, find_token(settings.token_file))
    gateway = HttpQueue(talk)
    welcome: Welcome = gateway.welcome()
    if settings.repo is not None:
        repository = Repository.open(settings.repo, mirrors=mirrors)
    else:
        founded = open_founded(retrying(RepositoryStore(talk)))
        repository = Repository(replace(founded, store=mirrored(founded.store, mirrors)))
    files = (
        JobStore(settings.files)
        if settings.files
        else JobStore(queue_url, store=retrying(FileStore(talk, gateway.job_of)))
    )
    named = settings.cluster if settings.cluster != "local" else welcome.cluster
    return Reach(repository, gateway.as_queue, files, timing or welcome.timing, named, gateway, welcome.models)
