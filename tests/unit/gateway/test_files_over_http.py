"""The files of jobs as a box sees them through a gateway whose store cannot sign: by URLs to the gateway itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelrepo.errors import Forbidden, ObjectNotFound
from modelrepo.repository import Repository
from modelrepo.testing.small_versions import small_version
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, Claim, Outcome, StageNeed, Submission
from modelrepo_runtime.jobstore import WHOLE_BYTES, JobStore
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, WorkerInfo
from modelrepo_runtime.queue.tokens import Grant, MemoryTokens, Role
from modelrepo_runtime.remote.file_store import FileStore
from modelrepo_runtime.remote.talk import Talk
from modelrepo_runtime.testing.gateways import LiveGateway


@dataclass
class Box:
    """A box with one claimed job that has an uploaded input, and the store behind its gateway."""

    queue: JobQueue
    session: Session
    claim: Claim
    files: JobStore
    behind: JobStore
    stranger: JobStore


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    repository = Repository.init((tmp_path / "repository").as_uri(), by="tests")
    small_version(repository.store, model="m")
    behind, tokens = JobStore(str(tmp_path / "files")), MemoryTokens()
    (tmp_path / "in.txt").write_text("quiet")
    key = behind.find_upload(behind.put_upload(tmp_path / "in.txt"))
    with closing(MemoryQueue("memory://files")) as queue:
        queue.submit(Submission("m", {}, (StageNeed("run"),), files={"text": key}))
        parts = assemble(GatewaySettings(token_cache_s=0.0), queue, repository, behind, tokens=tokens)
        with LiveGateway(parts) as gateway:
            talk = Talk(gateway.url, tokens.create("box", Grant(Role.WORKER, models=("m",)))[1])
            other = Talk(gateway.url, tokens.create("other", Grant(Role.WORKER, models=("n",)))[1], talk.connections)
            far = HttpQueue(talk)
            session = far.as_queue.hello(WorkerInfo("w", "box", 1))
            (claim,) = far.claim(session, 0, [Offer("0", "m", "v1", ("run",))])
            files = JobStore(gateway.url, store=FileStore(talk, far.job_of))
            stranger = JobStore(gateway.url, store=FileStore(other, far.job_of))
            yield Box(far.as_queue, session, claim, files, behind, stranger)
            far.close()


def test_inputs_come_and_outputs_and_logs_go_whatever_their_size(box: Box, tmp_path: Path) -> None:
    claim = box.claim
    assert box.files.fetch(claim.files["text"], tmp_path / "fetched").read_text() == "quiet"
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(WHOLE_BYTES + 1)
    for path, size in ((tmp_path / "in.txt", 5), (large, WHOLE_BYTES + 1)):
        kept = box.files.put_output(claim.job_id, claim.created_at, claim.fence, path.stem, path)
        assert kept.size_bytes == size == box.behind.store.stat(kept.key).size_bytes
    key = box.files.put_log(claim.job_id, claim.created_at, claim.fence, tmp_path / "in.txt")
    assert box.behind.read(key) == b"quiet" == box.files.read(key)


def test_a_box_has_the_files_of_its_own_jobs_alone_and_while_they_run(box: Box, tmp_path: Path) -> None:
    claim, path = box.claim, tmp_path / "in.txt"
    with pytest.raises(Forbidden):
        box.stranger.fetch(claim.files["text"], tmp_path / "stolen")
    with pytest.raises(Forbidden):
        box.stranger.put_log(claim.job_id, claim.created_at, claim.fence, path)
    with pytest.raises(ObjectNotFound):
        box.files.read(f"jobs/2026-01-01/{claim.job_id}/input/none.txt")
    box.queue.finish(box.session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED))
    with pytest.raises(Forbidden, match="has ended"):
        box.files.put_log(claim.job_id, claim.created_at, claim.fence, path)
