from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelrepo.contract import ModelSpec, parse_spec
from modelrepo.errors import (
    Conflict,
    InvalidActiveFile,
    InvalidInput,
    InvalidJobInput,
    JobNotFound,
    ModelNotFound,
    Unreachable,
    VersionNotFound,
)
from modelrepo.promotion.history import Kind
from modelrepo_runtime.client import Client
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome, OutputFile, StageNeed, Submission
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, Session, WorkerInfo

SPEC = """\
contract: 1
name: painter
entrypoint: model:Painter
inputs:
  prompt: {type: string, required: true}
  steps: {type: integer, minimum: 1, default: 4}
  image: {format: file, maxBytes: 1MiB}
outputs:
  picture: {format: file, contentType: image/png}
stages:
  - {name: prepare, on: cpu, timeout: 10s}
  - {name: paint, on: gpu, timeout: 2min}
"""


@dataclass
class Shelf:
    """A repository as far as a client needs one."""

    specs: dict[str, ModelSpec]
    active: str = "v1"
    history: tuple[Any, ...] = ()
    looked: list[str] = field(default_factory=list)

    def resolve(self, reference: str) -> Any:
        self.looked.append(reference)
        model, _, version = reference.partition("@")
        if model != "painter":
            raise ModelNotFound(f"no model {model}")
        if (version or self.active) not in self.specs:
            raise VersionNotFound(f"no version {reference}")
        return SimpleNamespace(version=version or self.active, spec=self.specs[version or self.active])

    def models(self) -> list[str]:
        return ["painter"]

    @property
    def promotions(self) -> Any:
        return SimpleNamespace(history=lambda model: self.history)


class Side:
    """A client, and a worker by hand on the other side of the queue."""

    def __init__(self, folder: Path) -> None:
        second = parse_spec(SPEC.replace("default: 4", "default: 8"))
        self.shelf = Shelf({"v1": parse_spec(SPEC), "v2": second})
        self.queue = MemoryQueue()
        self.files = JobStore(str(folder / "files"))
        self.client = Client(cast(Any, self.shelf), self.queue, self.files)
        self.session: Session = self.queue.hello(WorkerInfo("w", "box", 1))
        self.folder = folder

    def file(self, name: str, data: bytes = b"data") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def claim(self, seq: int = 1) -> Claim:
        (claim,) = self.queue.claim(self.session, seq, [Offer("0", "painter", "v1", ("prepare", "paint"))])
        return claim

    def finish_all_stages(self, outputs: tuple[Any, ...] = ()) -> Claim:
        first = self.claim(1)
        self.queue.finish(self.session, first.job_id, first.fence, Outcome(Cause.SUCCEEDED, 1))
        last = self.claim(2)
        self.queue.finish(self.session, last.job_id, last.fence, Outcome(Cause.SUCCEEDED, {"ok": True}, outputs))
        return last


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    made = Side(tmp_path)
    with made.client:
        yield made


def test_a_submission_is_defaulted_by_the_active_versions_schema(side: Side) -> None:
    job = side.client.submit("painter", {"prompt": "a cat"}, tier="api", metadata={"k": 1}, tenant="acme")
    assert (job["status"], job["tier"], job["tenant"], job["metadata"]) == ("queued", "api", "acme", {"k": 1})
    claim = side.claim()
    assert claim.inputs == {"prompt": "a cat", "steps": 4}
    assert (claim.stage, claim.timeout_s, claim.version) == ("prepare", 10.0, "v1")
    assert job["version"] is None and job["queue"] == {"position": 0, "slo_share": pytest.approx(0, abs=0.01)}


def test_a_version_that_is_asked_for_gives_schema_and_pin(side: Side) -> None:
    job = side.client.submit("painter", {"prompt": "x"}, version="v2")
    assert job["version"] == "v2"
    assert side.queue.get(job["id"]).inputs["steps"] == 8
    with pytest.raises(VersionNotFound):
        side.client.submit("painter", {"prompt": "x"}, version="v9")


@pytest.mark.parametrize(
    ("inputs", "pointer"),
    [
        ({}, "/prompt"),
        ({"prompt": 3}, "/prompt"),
        ({"prompt": "x", "steps": 0}, "/steps"),
        ({"prompt": "x", "n": 1}, "/n"),
    ],
)
def test_inputs_outside_the_schema_are_refused_and_nothing_is_queued(side: Side, inputs: Any, pointer: str) -> None:
    with pytest.raises(InvalidJobInput) as caught:
        side.client.submit("painter", inputs)
    assert caught.value.pointer == pointer
    assert side.queue.list() == ()


def test_a_path_becomes_a_file_of_the_job(side: Side) -> None:
    job = side.client.submit("painter", {"prompt": "x", "image": side.file("cat.png", b"cat")})
    claim = side.claim()
    assert claim.inputs["image"] == {"file": "cat.png"}
    assert side.files.read(claim.files["image"]) == b"cat"
    assert f"/{job['id']}/input/image.png" in claim.files["image"]


def test_an_upload_is_named_by_its_id(side: Side) -> None:
    file_id = side.client.upload(side.file("cat.png", b"cat"))
    side.client.submit("painter", {"prompt": "x", "image": {"file": file_id}})
    claim = side.claim()
    assert claim.inputs["image"] == {"file": file_id}
    assert side.files.read(claim.files["image"]) == b"cat"
    with pytest.raises(InvalidJobInput, match="upload it again") as caught:
        side.client.submit("painter", {"prompt": "x", "image": {"file": "file_gone"}})
    assert caught.value.pointer == "/image"


def test_a_submission_that_is_refused_keeps_no_file(side: Side) -> None:
    with pytest.raises(ValueError, match="gold"):
        side.client.submit("painter", {"prompt": "x", "image": side.file("cat.png")}, tier="gold")
    assert list(side.files._store.list("")) == []


def test_a_submission_of_which_nobody_knows_what_became_keeps_its_file(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = side.queue.submit

    def lose_the_answer(submission: Submission, *, idempotency_key: str | None = None) -> None:
        taken(submission, idempotency_key=idempotency_key)
        raise Unreachable("the connection ended while it committed")

    inputs = {"prompt": "x", "image": side.file("cat.png", b"cat")}
    with monkeypatch.context() as patched, pytest.raises(Unreachable):
        patched.setattr(side.queue, "submit", lose_the_answer)
        side.client.submit("painter", inputs, idempotency_key="k")
    side.client.submit("painter", inputs, idempotency_key="k")
    assert side.files.read(side.claim().files["image"]) == b"cat"


def test_the_same_key_gives_the_same_job_and_keeps_one_file(side: Side) -> None:
    inputs = {"prompt": "x", "image": side.file("cat.png")}
    first, again = (side.client.submit("painter", inputs, idempotency_key="k") for _ in range(2))
    assert first["id"] == again["id"]
    assert len(list(side.files._store.list(""))) == 1


def test_wait_returns_the_end_with_urls_of_the_outputs(side: Side) -> None:
    job_id = side.client.submit("painter", {"prompt": "x"})["id"]
    output = side.files.put_output(job_id, 0.0, Fence(1, "a"), "picture", side.file("p.png"))
    worker = threading.Thread(target=side.finish_all_stages, args=((output,),))
    worker.start()
    done = side.client.wait(job_id, timeout_s=30)
    worker.join()
    assert (done["status"], done["result"]) == ("succeeded", {"ok": True})
    assert done["outputs"][0]["url"].startswith("file://") and done["outputs"][0]["bytes"] == 4


def test_wait_gives_up_with_the_job_as_it_is(side: Side) -> None:
    job_id = side.client.submit("painter", {"prompt": "x"})["id"]
    assert side.client.wait(job_id, timeout_s=0.01)["status"] == "queued"
    with pytest.raises(JobNotFound):
        side.client.wait("job_none", timeout_s=0.01)


def test_events_tell_every_change_once_and_end(side: Side) -> None:
    job_id = side.client.submit("painter", {"prompt": "x"})["id"]
    events = side.client.events(job_id, timeout_s=30)
    assert next(events)["status"] == "queued"
    claim = side.claim(1)
    assert next(events)["status"] == "running"
    side.queue.progress(job_id, claim.fence, 0.5, "half")
    assert next(events)["message"] == "half"
    side.queue.finish(side.session, job_id, claim.fence, Outcome(Cause.SUCCEEDED))
    last = side.claim(2)
    assert next(events)["stage"] == "paint"
    side.queue.finish(side.session, job_id, last.fence, Outcome(Cause.SUCCEEDED))
    assert [event["status"] for event in events] == ["succeeded"]


def test_cancel_and_delete_take_job_and_files_away(side: Side) -> None:
    file_id = side.client.upload(side.file("cat.png"))
    inputs = {"prompt": "x", "image": {"file": file_id}}
    job_id = side.client.submit("painter", inputs)["id"]
    side.claim()
    with pytest.raises(Conflict, match="cancel it first"):
        side.client.delete(job_id)
    other = side.client.submit("painter", {"prompt": "x", "image": side.file("dog.png")})["id"]
    assert side.client.cancel(other)["status"] == "cancelled"
    side.client.delete(other)
    assert len(list(side.files._store.list(""))) == 1
    with pytest.raises(JobNotFound):
        side.client.get(other)


def test_a_log_is_read_where_there_is_one(side: Side) -> None:
    job_id = side.client.submit("painter", {"prompt": "x"})["id"]
    assert side.client.log(job_id) == ""
    claim = side.claim()
    key = side.files.put_log(job_id, claim.created_at, claim.fence, side.file("log", "gr\u00fc\u00df\n".encode()))
    rejected = Outcome(Cause.REJECTED, log_key=key)
    side.queue.finish(side.session, job_id, claim.fence, rejected)
    assert side.client.log(job_id) == "gr\u00fc\u00df\n"


def test_lists_and_models_are_shown(side: Side) -> None:
    job_id = side.client.submit("painter", {"prompt": "x"})["id"]
    assert [job["id"] for job in side.client.list(status="queued", model="painter")] == [job_id]
    assert side.client.list(status="failed") == ()
    (model,) = side.client.models()
    assert (model["name"], model["version"], set(model["inputs"])) == ("painter", "v1", {"prompt", "steps", "image"})
    assert set(side.client.schemas("painter", "v2")) == {"prompt", "steps", "image"}
    with pytest.raises(ModelNotFound):
        side.client.submit("other")


@pytest.mark.parametrize("error", [VersionNotFound("no v77"), InvalidActiveFile("no YAML")])
def test_a_hand_edit_that_nobody_can_follow_stops_no_submission(
    side: Side, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = side.shelf.resolve

    def broken(reference: str) -> Any:
        if reference == "painter":
            raise error
        return resolve(reference)

    monkeypatch.setattr(side.shelf, "resolve", broken)
    with pytest.raises(type(error)):
        side.client.submit("painter", {"prompt": "a cat"})
    assert side.client.models() == ()
    said = (Kind.PROMOTE, "v1"), (Kind.PROMOTE, "v2"), (Kind.HAND_EDIT, "v9"), (Kind.BLOCK, "v1")
    side.shelf.history = tuple(SimpleNamespace(kind=kind, version=version) for kind, version in said)
    job = side.client.submit("painter", {"prompt": "a cat"})
    assert (job["status"], job["version"]) == ("queued", None)
    assert side.queue.get(job["id"]).inputs["steps"] == 8
    assert [found["version"] for found in side.client.models()] == ["v2"]


def test_a_spec_is_read_once_while_the_poll_interval_lasts(side: Side) -> None:
    for _ in range(5):
        side.client.submit("painter", {"prompt": "x"})
        side.client.submit("painter", {"prompt": "x"}, version="v2")
    assert len(side.shelf.looked) <= 3


def test_who_only_looks_at_jobs_need_not_say_where_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELREPO_FILES", raising=False)
    queue = MemoryQueue("elsewhere://queue")
    job = queue.submit(Submission("m", {}, (StageNeed("run"),)))
    session = queue.hello(WorkerInfo("w", "box", 1))
    (claim,) = queue.claim(session, 0, [Offer("0", "m", "v1", ("run",))])
    output = OutputFile("out", "jobs/x/out", 1, "text/plain")
    queue.finish(session, job.id, claim.fence, Outcome(Cause.SUCCEEDED, None, (output,)))
    client = Client(queue=queue)
    assert client.get(job.id)["outputs"][0]["url"] is None
    with pytest.raises(InvalidInput):
        client.upload(__file__)
