"""The API as its OpenAPI document has it: every path, every role, anything that may be sent.

MODELREPO_ACCEPTANCE=full sends twenty times as much.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction, load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks

from modelrepo.errors import Unreachable
from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.fetching import Fetcher
from modelrepo_runtime.gateway.serving import Place
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, JobError, Outcome, StageNeed, Submission
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.testing.certificates import certificate
from modelrepo_runtime.testing.gateways import LiveGateway
from modelrepo_runtime.testing.https_server import serving

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
EXAMPLES = 100 if FULL else 5
SECRET_OF_OTHERS = "of-another-tenant-alone"
ROLES: Mapping[str, Grant | None] = {
    "nobody": None,
    "submit": Grant(Role.SUBMIT, tenant="acme"),
    "narrow": Grant(Role.SUBMIT, tenant="acme", tiers=("api",), models=("toy",), max_queued=3),
    "worker": Grant(Role.WORKER, cluster="c1"),
    "operate": Grant(Role.OPERATE),
}
PYPROJECT = '[project]\nname = "m"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = []\n'
MODEL = """\
contract: 1
name: toy
entrypoint: model:Model
inputs:
  text: {type: string, required: true}
  image: {format: file}
"""


@dataclass(frozen=True)
class Stage:
    gateway: LiveGateway
    tokens: Mapping[str, str]
    own: tuple[str, ...]
    """Ended jobs of the tenant acme."""
    others: tuple[str, ...]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("api")
    repository = Repository.init((folder / "repository").as_uri(), by="tests")
    source = folder / "toy"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT + "[tool.uv]\npackage = false\n")
    (source / "model.yaml").write_text(MODEL)
    (source / "model.py").write_text("class Model:\n    def load(self, ctx): pass\n    def run(self, job): return {}\n")
    repository.promotions.promote("toy", repository.push(source, PushOptions(check="none", lock=True)).version)
    queue = SqliteQueue(folder / "queue.db")
    files = JobStore((folder / "files").as_uri())
    tokens = {name: queue.tokens.create(name, grant)[1] for name, grant in ROLES.items() if grant is not None}
    own, others = (_ended_jobs(queue, files, tenant, folder) for tenant in ("acme", "others"))
    rules = AddressRules(resolve=lambda host, port: ["10.0.0.1"])
    parts = assemble(GatewaySettings(silence_s=5.0), queue, repository, files, rules=rules)
    with LiveGateway(parts) as gateway:
        yield Stage(gateway, tokens, own, others)
    queue.close()


def _ended_jobs(queue: SqliteQueue, files: JobStore, tenant: str, folder: Path) -> tuple[str, ...]:
    told = SECRET_OF_OTHERS if tenant == "others" else "hi"
    session = queue.hello(WorkerInfo(tenant, "box", 1))
    made: list[str] = []
    for number, cause in enumerate((Cause.SUCCEEDED, Cause.REJECTED)):
        stages = (StageNeed("run"),)
        submission = Submission("toy", {"text": told}, stages, tenant=tenant, metadata={"note": told})
        job = queue.submit(submission)
        (claim,) = queue.claim(session, number, [Offer("0", "toy", "v1", ("run",))])
        path = folder / f"{tenant}.txt"
        path.write_text(told)
        outputs = (files.put_output(job.id, job.created_at, claim.fence, told, path),)
        error = None if cause is Cause.SUCCEEDED else JobError("rejected", told)
        outcome = Outcome(cause, {"text": told}, outputs if error is None else (), error)
        queue.finish(session, job.id, claim.fence, outcome)
        made.append(job.id)
    return tuple(made)


def test_the_document_is_stable_and_names_every_operation_once(stage: Stage) -> None:
    document = stage.gateway.ask("GET", "/v1/openapi.json").json()
    names = {
        operation["operationId"]: f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert names == {
        "submitJob": "POST /v1/jobs",
        "listJobs": "GET /v1/jobs",
        "getJob": "GET /v1/jobs/{job_id}",
        "deleteJob": "DELETE /v1/jobs/{job_id}",
        "cancelJob": "POST /v1/jobs/{job_id}/cancel",
        "watchJob": "GET /v1/jobs/{job_id}/events",
        "getJobLog": "GET /v1/jobs/{job_id}/log",
        "createFile": "POST /v1/files",
        "putContent": "PUT /v1/content/{key}",
        "getContent": "GET /v1/content/{key}",
        "listModels": "GET /v1/models",
        "getModel": "GET /v1/models/{name}",
        "isAlive": "GET /healthz",
        "isReady": "GET /readyz",
        "getMetrics": "GET /metrics",
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            faults = [answer for status, answer in operation["responses"].items() if status >= "400"]
            for fault in faults:
                assert fault["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/FaultDocument"}


@pytest.mark.parametrize("role", ROLES)
def test_no_request_brings_a_fault_or_another_tenant_s_data(stage: Stage, role: str) -> None:
    load_all_checks()
    checks: list[CheckFunction] = [
        not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_dict(stage.gateway.app.openapi())
    token = stage.tokens.get(role)
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    sees_all = role == "operate"
    job_ids = st.sampled_from([*stage.own, *stage.others, "job_00000000000000000000000v", "%00", "é"])
    seen: dict[str, set[int]] = {}

    def send(operation: schemathesis.APIOperation[Any, Any, Any, Any]) -> None:
        name = operation.definition.raw["operationId"]

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), job_id=st.none() | job_ids)
        def send_one(case: schemathesis.Case[Any], job_id: str | None) -> None:
            if job_id is not None and "job_id" in (case.path_parameters or {}):
                case.path_parameters = {"job_id": "job_none" if name == "deleteJob" and sees_all else job_id}
            answer = case.call(base_url=stage.gateway.url, headers=headers, timeout=30)
            case.validate_response(answer, checks=checks)
            seen.setdefault(name, set()).add(answer.status_code)
            if not sees_all:
                assert SECRET_OF_OTHERS.encode() not in answer.content
                assert answer.status_code == 404 or not any(job.encode() in answer.content for job in stage.others)

        send_one()

    for found in schema.get_all_operations():
        send(cast(Any, found).ok())
    assert len(seen) == 15
    if token is None:
        public = {"isAlive", "isReady", "putContent", "getContent"}
        assert all(statuses <= {401, 422} for name, statuses in seen.items() if name not in public), seen


SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0"
INSIDE = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "localhost", "[::1]", "[::ffff:127.0.0.1]"),
    *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "100.127.0.1", "[fd00::1]"),
    *("[fe80::1]", "0.0.0.0", "[::]", "[64:ff9b::7f00:1]", "224.0.0.1"),
]


def test_no_url_of_a_tenant_reaches_the_box_or_its_networks(tmp_path: Path, stage: Stage) -> None:
    """A server on loopback counts who comes; names are as an attacker would have them, resolution is the system's."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]

        def take() -> None:
            while True:
                try:
                    connection, _ = trap.accept()
                except OSError:
                    return
                came.append("somebody")
                connection.close()

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        real = assemble(
            GatewaySettings(),
            stage.gateway.parts.queue,
            stage.gateway.parts.client.repository,
            stage.gateway.parts.files,
        )
        with LiveGateway(real) as gateway:
            token = stage.tokens["submit"]
            for host in INSIDE:
                for told in (
                    {"inputs": {"text": "hi", "image": f"https://{host}:{port}/x"}},
                    {"inputs": {"text": "hi"}, "webhook": {"url": f"https://{host}:{port}/x", "secret": SECRET}},
                ):
                    reply = gateway.ask("POST", "/v1/jobs", {"model": "toy", **told}, token=token)
                    assert reply.status in (422, 503), (host, reply.body)
        trap.shutdown(socket.SHUT_RDWR)
        taker.join(10)
    assert came == []


def test_a_name_that_changes_its_address_gains_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer of the name server is public, every later one is loopback."""
    answers = [["127.0.0.1"], ["8.8.8.8"]]
    tried: list[tuple[str, int]] = []

    def nowhere(address: tuple[str, int], *_: object, **__: object) -> None:
        tried.append(address)
        raise OSError("nobody is there")

    rules = AddressRules(resolve=lambda host, port: answers.pop() if len(answers) > 1 else answers[0])
    monkeypatch.setattr("modelrepo_runtime.gateway.addresses.socket.create_connection", nowhere)
    with pytest.raises(Unreachable, match="nobody is there"):
        Fetcher(rules).fetch("https://rebinding.example/x", tmp_path)
    assert tried == [("8.8.8.8", 443)]


def test_a_redirection_does_not_lead_inside(tmp_path: Path, stage: Stage) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.1:{urlsplit(stage.gateway.url).port}/healthz")
        handler.end_headers()

    with serving(tmp_path, redirect) as (port, tls):
        parts = assemble(
            GatewaySettings(allow_url_hosts=frozenset({"localhost"})),
            stage.gateway.parts.queue,
            stage.gateway.parts.client.repository,
            stage.gateway.parts.files,
            tls=tls,
        )
        with LiveGateway(parts) as gateway:
            inputs = {"text": "hi", "image": f"https://localhost:{port}/x"}
            reply = gateway.ask("POST", "/v1/jobs", {"model": "toy", "inputs": inputs}, token=stage.tokens["submit"])
    assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/inputs/image")
    assert "only the same host" in reply.json()["error"]["message"]


def test_tls_is_spoken_where_a_certificate_is_given(tmp_path: Path, stage: Stage) -> None:
    chain, key = certificate(tmp_path)
    parts = assemble(
        GatewaySettings(), stage.gateway.parts.queue, stage.gateway.parts.client.repository, stage.gateway.parts.files
    )
    with LiveGateway(parts, Place(port=0, certificate=chain, key=key)) as gateway:
        assert gateway.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(chain))
        address = (urlsplit(gateway.url).hostname, urlsplit(gateway.url).port)
        with socket.create_connection(address, timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
