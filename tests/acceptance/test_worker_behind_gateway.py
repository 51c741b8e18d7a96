"""A box whose whole set-up is the address of a gateway and a token: no credential, no repository, no database."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo.testing.proxy import Proxy, Swallow
from modelrepo_runtime.client import Client, JobObject
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import Grant, Role, token_store
from modelrepo_runtime.testing.gateway_process import BareBox, GatewayProcess
from modelrepo_runtime.testing.live import PYPROJECT
from modelrepo_runtime.timing import Timing

PATIENCE_S = 60.0
TIMING = replace(Timing.embedded(), lease_s=20.0)

YAML = """\
inputs:
  text: {type: string, format: file}
  until: {type: string, default: ""}
outputs:
  loud: {contentType: text/plain}
"""

CODE = """
import os, pathlib, time

class Model:
    def load(self, ctx):
        self.ctx = ctx

    def run(self, job):
        while job.inputs.get("until") and not os.path.exists(job.inputs["until"]):
            job.progress(0.5, "waits")
            time.sleep(0.01)
        words = pathlib.Path(job.file("text")).read_text().upper()
        job.output("loud").write_text(words)
        return {"version": self.ctx.version, "secrets": sorted(n for n in os.environ if n.startswith("AWS_"))}
"""


@dataclass
class Fleet:
    """The side that has the credentials: repository and files in a bucket, a queue, and a gateway before them."""

    folder: Path
    gateway: GatewayProcess
    queue: JobQueue
    client: Client
    repository: Repository
    token: str
    stack: ExitStack

    def push(self, code: str = CODE) -> str:
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        (source / "pyproject.toml").write_text(PYPROJECT)
        (source / "model.yaml").write_text(f"contract: 1\nname: live\nentrypoint: model:Model\n{YAML}")
        (source / "model.py").write_text(code)
        return self.repository.push(source, PushOptions(check="none", lock=True)).version

    def promote(self, version: str) -> None:
        self.repository.promotions.promote("live", version, force=True)

    def box(self, url: str | None = None, *options: str) -> BareBox:
        return self.stack.enter_context(BareBox(self.folder, url or self.gateway.url, self.token, *options))

    def submit(self, text: str, until: str = "") -> str:
        path = self.folder / "in.txt"
        path.write_text(text)
        return self.client.submit("live", {"text": path, "until": until})["id"]

    def done(self, job_id: str) -> JobObject:
        job = self.client.wait(job_id, PATIENCE_S)
        assert job["status"] == "succeeded", f"{job}\n{self.logs()}"
        return job

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        waiter = self.queue.waiter(["live"])
        with closing(waiter):
            while not true():
                assert time.monotonic() < end, f"still not: {what}\n{self.logs()}"
                waiter.wait(0.05)

    def logs(self) -> str:
        boxes = "\n".join(path.read_text(errors="replace")[-4000:] for path in self.folder.glob("*/worker.log"))
        return f"{boxes}\n--- gateway\n{self.gateway.text()[-4000:]}"


@pytest.fixture
def fleet(tmp_path: Path, seaweed: object) -> Iterator[Fleet]:
    bucket = seaweed.url  # type: ignore[attr-defined]
    repository = Repository.init(f"{bucket}/models", by="tests")
    url, files = sqlite_url(tmp_path / "queue.db"), f"{bucket}/files"
    with ExitStack() as stack, closing(open_queue(url, TIMING)) as queue:
        _, token = token_store(queue).create("box", Grant(Role.WORKER, models=("live",), cluster="east"))
        gateway = GatewayProcess(tmp_path, repo=repository.url, queue=url, files=files, timing=TIMING)
        stack.enter_context(gateway)
        with Client(repository, queue, files) as client:
            yield Fleet(tmp_path, gateway, queue, client, repository, token, stack)
            stack.close()


def test_a_box_needs_a_gateway_and_a_token_and_nothing_else(fleet: Fleet) -> None:
    first = fleet.push()
    fleet.promote(first)
    box = fleet.box()
    job = fleet.done(fleet.submit("quiet"))
    assert job["result"] == {"version": first, "secrets": []}
    (output,) = job["outputs"]
    key = fleet.queue.get(job["id"]).outputs[0].key
    assert fleet.client.files.read(key) == b"QUIET" and output["bytes"] == 5
    (worker,) = fleet.queue.fleet()
    assert (worker.info.name, worker.info.cluster) == ("box", "east")

    second = fleet.push(CODE + "\n")
    fleet.promote(second)
    fleet.until(lambda: fleet.queue.fleet()[0].slots[0].version == second, "the box serves the second version")
    result = fleet.done(fleet.submit("again"))["result"]
    assert isinstance(result, dict) and result["version"] == second
    assert box.stop() == 0, box.text()
    assert fleet.queue.fleet() == ()


def test_a_job_outlives_its_gateway_and_every_lost_answer(fleet: Fleet) -> None:
    fleet.promote(fleet.push())
    address = urlsplit(fleet.gateway.url)
    assert address.hostname and address.port
    with Proxy(address.hostname, address.port) as proxy:
        fleet.box(proxy.endpoint)
        fleet.done(fleet.submit("warm"))
        lost = [proxy.on(Swallow(), "POST", "/v1/worker/finish$"), proxy.on(Swallow(), "POST", "/v1/worker/claim$")]
        go = fleet.folder / "go"
        job_id = fleet.submit("slow", str(go))
        fleet.until(lambda: fleet.client.get(job_id)["progress"] == 0.5, "the job runs")
        fleet.gateway.kill()
        go.touch()
        fleet.gateway.start()
        fleet.done(job_id)
        fleet.until(lambda: all(rule.struck for rule in lost), "both answers were lost")
        fleet.done(fleet.submit("after"))
        history = fleet.queue.history(job_id)
        assert [(row.event, row.cause) for row in history] == [("attempt", "succeeded")], (history, fleet.logs())
        fleet.stack.close()
