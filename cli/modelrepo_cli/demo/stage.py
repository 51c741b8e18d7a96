"""Where the demo plays: a folder of its own with a repository, a queue, and what opens them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelrepo.contract import ModelSpec, load_spec
from modelrepo.environments import IndexSettings
from modelrepo.repository import Repository
from modelrepo_cli.demo.examples import example_folder
from modelrepo_cli.demo.scenario import Scenario
from modelrepo_cli.demo.telling import Tell
from modelrepo_cli.demo.worker_process import Place
from modelrepo_runtime.client import Client
from modelrepo_runtime.jobs import Job
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue

RUNS_KEPT = 2  # this one and the one before: a repository with torch's wheel in it has 200 MB


@dataclass(frozen=True, slots=True)
class Stage:
    """What every act of the demo uses."""

    scenario: Scenario
    spec: ModelSpec
    place: Place
    repository: Repository
    queue: JobQueue
    client: Client
    index: IndexSettings
    tell: Tell
    submitted: list[str] = field(default_factory=list)
    """The id of every job, in whatever act and thread it was submitted."""

    @property
    def model(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return self.place.folder

    @property
    def kept_locks(self) -> Path:
        return self.folder.parent / "locks"

    def submit(self, inputs: Mapping[str, Any], tier: str) -> str:
        """Submit a job and return its id; safe to call from several threads."""
        job_id = self.client.submit(self.model, inputs, tier=tier)["id"]
        self.submitted.append(job_id)
        return job_id

    def output(self, job: Job, name: str) -> bytes:
        """Return an output file of a job. Raises: LookupError, Unreachable."""
        keys = {output.name: output.key for output in job.outputs}
        return self.client.files.read(keys[name])


@contextmanager
def set_up(scenario: Scenario, folder: Path, cache: Path, tell: Tell) -> Iterator[Stage]:
    """Make a new folder below `folder` with an empty repository and queue in it."""
    run = new_folder(folder)
    place = Place(
        repo=(run / "repository").as_uri(),
        queue=sqlite_url(run / "queue.db"),
        files=(run / "files").as_uri(),
        cache=cache,
        folder=run,
    )
    with ExitStack() as stack:
        repository = Repository.init(place.repo)
        queue = open_queue(place.queue)
        stack.callback(queue.close)
        client = Client(repo=repository, queue=queue, files=place.files)
        stack.callback(client.close)
        spec = load_spec(example_folder(scenario.example))
        yield Stage(scenario, spec, place, repository, queue, client, IndexSettings.from_environment(), tell)


def new_folder(folder: Path) -> Path:
    """Make `run-0001` or the next below `folder`, and take away those of long past runs."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        older = sorted(folder.glob("run-[0-9][0-9][0-9][0-9]"))
        run = folder / f"run-{int(older[-1].name.removeprefix('run-')) + 1 if older else 1:04}"
        try:
            run.mkdir()
        except FileExistsError:
            continue  # another demo took the number
        for path in older[: -(RUNS_KEPT - 1)]:
            shutil.rmtree(path, ignore_errors=True)
        return run
