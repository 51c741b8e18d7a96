"""The public API over the database of a fleet: what its statements do for listing, waiting, watching and limits."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo.testing.small_versions import small_version
from modelrepo_runtime.client import Client
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, Outcome
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.testing.gateways import LiveGateway

PYPROJECT = '[project]\nname = "m"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = []\n'
PYPROJECT += "[tool.uv]\npackage = false\n"


def test_a_job_goes_its_way_through_gateway_and_postgresql(postgres_url: str, tmp_path: Path) -> None:
    repository = Repository.init((tmp_path / "repository").as_uri(), by="tests")
    small_version(repository.store, model="m")
    source = tmp_path / "toy"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "model.yaml").write_text("contract: 1\nname: toy\nentrypoint: model:Model\n")
    (source / "model.py").write_text("class Model:\n    def load(self, ctx): pass\n    def run(self, job): return {}\n")
    repository.promotions.promote("toy", repository.push(source, PushOptions(check="none", lock=True)).version)
    files = JobStore((tmp_path / "files").as_uri())
    with closing(PostgresQueue(postgres_url)) as queue:
        _, token = queue.tokens.create("shop", Grant(Role.SUBMIT, tenant="acme", max_queued=2))
        _, other = queue.tokens.create("other", Grant(Role.SUBMIT, tenant="other"))
        with LiveGateway(assemble(GatewaySettings(), queue, repository, files)) as gateway:
            with Client(gateway.url, token=token) as client, Client(gateway.url, token=other) as stranger:
                first = client.submit("toy", {"text": "hi"}, tier="api", idempotency_key="one")
                assert client.submit("toy", {"text": "hi"}, tier="api", idempotency_key="one")["id"] == first["id"]
                second = client.submit("toy", {"text": "ho"})
                body = {"model": "toy", "inputs": {}}
                assert gateway.ask("POST", "/v1/jobs", body, token=token).status == 429
                seen: list[Any] = []
                watching = threading.Thread(target=lambda: seen.extend(client.events(first["id"], timeout_s=60)))
                watching.start()
                session = queue.hello(WorkerInfo("w", "box", 1))
                (claim,) = queue.claim(session, 0, [Offer("0", "toy", "v1", ("run",))])
                queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, {"text": "done"}))
                assert client.wait(first["id"], timeout_s=60)["result"] == {"text": "done"}
                watching.join()
                assert seen[-1]["status"] == "succeeded"
                assert [job["id"] for job in client.list(limit=1)] == [second["id"]]
                assert [job["id"] for job in client.list(status="succeeded")] == [first["id"]]
                assert stranger.list() == ()
                assert client.cancel(second["id"])["status"] == "cancelled"
                client.delete(second["id"])
                assert len(client.list()) == 1
