"""Adapters of jobs, end to end: a gateway with tokens, a box that knows nothing else, a model that reads every byte.

MODELREPO_ACCEPTANCE=full sends 10,000 distinct adapters over a cache of 100.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import InvalidAdapter
from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import Grant, Role, token_store
from modelrepo_runtime.testing.gateway_process import BareBox, GatewayProcess
from modelrepo_runtime.testing.live import PYPROJECT
from modelrepo_runtime.timing import Timing

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
ADAPTERS, KEPT = (10_000, 100) if FULL else (120, 20)
UNDER_WAY = 50
"""Jobs that are submitted and not looked at yet."""
PATIENCE_S = 60.0
TIMING = replace(Timing.embedded(), lease_s=20.0)
LARGE_BYTES = 48 << 20
"""So much takes a while to fetch, which is what makes a box fetch ahead."""

YAML = 'contract: 1\nname: live\nentrypoint: model:Model\ninputs: {until: {type: string, default: ""}}\n'
CODE = """
import hashlib, os, time

class Model:
    def load(self, ctx): pass

    def run(self, job):
        seen = [[one.name, one.weight, one.sha256, hashlib.sha256(one.path.read_bytes()).hexdigest()]
                for one in job.adapters]
        shelf = job.adapters[0].path.resolve().parent if job.adapters else None
        kept = len(os.listdir(shelf)) if shelf is not None else 0
        while job.inputs["until"] and not os.path.exists(job.inputs["until"]):
            job.progress(0.9, "waits")
            time.sleep(0.01)
        return {"seen": seen, "kept": kept}
"""


@dataclass
class Fleet:
    """A gateway, one box with one slot, and clients of two tenants."""

    folder: Path
    queue: JobQueue
    gateway: GatewayProcess
    repository: Repository
    box: BareBox
    acme: Client
    eve: Client

    @property
    def shelf(self) -> Path:
        return self.box.folder / "cache" / "worker" / "adapters" / "entries"

    def ended(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = dict(self.acme.wait(job_id, PATIENCE_S))
        assert job["status"] not in ("queued", "running"), f"{job}\n{self.logs()}"
        return job

    def until(self, true: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        with closing(self.queue.waiter(["live"])) as waiter:
            while not true():
                assert time.monotonic() < end, f"still not: {what}\n{self.logs()}"
                waiter.wait(0.02)

    def logs(self) -> str:
        return f"{self.box.text()[-4000:]}\n--- gateway\n{self.gateway.text()[-4000:]}"

    def file(self, data: bytes, name: str = "style.safetensors") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    repository = Repository.init((tmp_path / "repo").as_uri(), by="tests")
    source = tmp_path / "source"
    source.mkdir()
    for name, text in (("pyproject.toml", PYPROJECT), ("model.yaml", YAML), ("model.py", CODE)):
        (source / name).write_text(text)
    version = repository.push(source, PushOptions(check="none", lock=True)).version
    repository.promotions.promote("live", version, force=True)
    url, files = sqlite_url(tmp_path / "queue.db"), (tmp_path / "files").as_uri()
    with ExitStack() as stack, closing(open_queue(url, TIMING)) as queue:
        tokens = token_store(queue)
        _, worker = tokens.create("box", Grant(Role.WORKER, models=("live",), cluster="east"))
        made = {name: tokens.create(name, Grant(Role.SUBMIT, tenant=name))[1] for name in ("acme", "eve")}
        gateway = GatewayProcess(tmp_path, repo=repository.url, queue=url, files=files, timing=TIMING)
        stack.enter_context(gateway)
        options = ("--pool", "none", "--adapter-files", str(KEPT))
        box = stack.enter_context(BareBox(tmp_path, gateway.url, worker, *options))
        acme, eve = (stack.enter_context(closing(Client(gateway.url, token=made[name]))) for name in ("acme", "eve"))
        yield Fleet(tmp_path, queue, gateway, repository, box, acme, eve)


@pytest.mark.timeout(3600)
def test_every_adapter_reaches_its_job_and_the_cache_stays_within_its_bound(fleet: Fleet) -> None:
    shared = fleet.repository.adapters.push("shared", fleet.file(b"published"))
    run = secrets.token_hex(8)
    under_way: list[tuple[str, str, float]] = []
    most_kept = looked_at = 0

    def look(job_id: str, sha256: str, weight: float) -> None:
        nonlocal most_kept, looked_at
        job = fleet.ended(job_id)
        assert job["status"] == "succeeded", f"{job}\n{fleet.logs()}"
        own, published = job["result"]["seen"]
        assert own == ["style.safetensors", weight, sha256, sha256]
        assert published == [shared.ref, -1.0, shared.sha256, shared.sha256]
        most_kept, looked_at = max(most_kept, job["result"]["kept"]), looked_at + 1

    for number in range(ADAPTERS):
        data, weight = f"{run} {number}".encode() * 20, number / ADAPTERS
        adapters = [{"file": fleet.file(data), "weight": weight}, {"ref": shared.ref, "weight": -1}]
        job = fleet.acme.submit("live", adapters=adapters)
        under_way.append((job["id"], hashlib.sha256(data).hexdigest(), weight))
        if len(under_way) >= UNDER_WAY:
            look(*under_way.pop(0))
    for one in under_way:
        look(*one)
    assert (looked_at, most_kept) == (ADAPTERS, KEPT)
    assert len(list(fleet.shelf.iterdir())) <= KEPT
    assert any(path.read_bytes() == b"published" for path in fleet.shelf.iterdir()), "what every job uses was evicted"


def test_the_next_job_s_adapter_comes_while_one_runs(fleet: Fleet) -> None:
    for _ in range(2):  # from these the box learns how long a fetch takes
        first = fleet.acme.submit("live", adapters=[{"file": fleet.file(secrets.token_bytes(LARGE_BYTES))}])
        assert fleet.ended(first["id"])["status"] == "succeeded"
    gate, data = fleet.folder / "gate", secrets.token_bytes(LARGE_BYTES)
    running = fleet.acme.submit("live", {"until": str(gate)})["id"]
    fleet.until(lambda: fleet.queue.get(running).progress == 0.9, "the first job runs")
    known = {path.name for path in fleet.shelf.iterdir()}
    waiting = fleet.acme.submit("live", adapters=[{"file": fleet.file(data)}])["id"]
    fleet.until(lambda: bool({path.name for path in fleet.shelf.iterdir()} - known), "the next adapter is there")
    assert [fleet.acme.get(job)["status"] for job in (running, waiting)] == ["running", "queued"]
    gate.touch()
    assert fleet.ended(running)["status"] == "succeeded"
    ended = fleet.ended(waiting)
    assert ended["result"]["seen"][0][3] == hashlib.sha256(data).hexdigest(), fleet.logs()


def test_another_tenant_s_adapter_is_refused_and_its_digest_opens_nothing(fleet: Fleet) -> None:
    secret = b"weights of acme"
    digest = hashlib.sha256(secret).hexdigest()
    file_id = fleet.acme.upload(fleet.file(secret))
    own = fleet.acme.submit("live", adapters=[{"file": file_id, "sha256": digest}])["id"]
    assert fleet.ended(own)["result"]["seen"][0][3] == digest
    for told in ({"file": file_id}, {"file": file_id, "sha256": digest}):
        with pytest.raises(InvalidAdapter, match="no uploaded file") as refused:
            fleet.eve.submit("live", adapters=[told])
        assert refused.value.pointer == "/adapters/0/file"
    other = fleet.eve.upload(fleet.file(b"nothing of acme"))
    forged = fleet.eve.submit("live", adapters=[{"file": other, "sha256": digest}])["id"]
    job = fleet.eve.wait(forged, PATIENCE_S)
    assert job["status"] == "rejected" and job["error"] is not None
    assert job["error"]["code"] == "adapter_mismatch", fleet.logs()
    again = fleet.acme.submit("live", adapters=[{"file": file_id}])["id"]
    assert fleet.ended(again)["status"] == "succeeded"
