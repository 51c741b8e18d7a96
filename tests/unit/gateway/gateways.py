"""Gateways for tests: a repository with two models, a queue in memory, tokens of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, Claim, Outcome, OutputFile
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.memory.queue import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.testing.gateways import LiveGateway, Reply
from modelrepo_runtime.timing import Timing

PYPROJECT = '[project]\nname = "m"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = []\n'
PYPROJECT += "[tool.uv]\npackage = false\n"
CODE = "class Model:\n    def load(self, ctx): pass\n    def run(self, job): return {}\n"
INPUTS = """\
inputs:
  text: {type: string, required: true}
  steps: {type: integer, default: 4, minimum: 1}
  image: {format: file, contentTypes: [image/png, text/plain], maxBytes: 1MB}
"""
MOST_LOOKS = 2000
GRANTS: Mapping[str, Grant] = {
    "acme": Grant(Role.SUBMIT, tenant="acme"),
    "other": Grant(Role.SUBMIT, tenant="other"),
    "any": Grant(Role.SUBMIT),
    "narrow": Grant(Role.SUBMIT, tenant="acme", tiers=("api", "free"), models=("toy",), max_queued=2),
    "box": Grant(Role.WORKER, cluster="c1"),
    "boss": Grant(Role.OPERATE),
}


def repository(folder: Path, models: Sequence[str] = ("toy", "bare")) -> Repository:
    """Return a repository in which every model has an active version."""
    made = Repository.init((folder / "repository").as_uri(), by="tests")
    for model in models:
        source = folder / f"source-{model}"
        source.mkdir(parents=True)
        (source / "pyproject.toml").write_text(PYPROJECT)
        yaml = f"contract: 1\nname: {model}\nentrypoint: model:Model\n"
        (source / "model.yaml").write_text(yaml + (INPUTS if model == "toy" else ""))
        (source / "model.py").write_text(CODE)
        version = made.push(source, PushOptions(check="none", lock=True)).version
        made.promotions.promote(model, version, force=True)
    return made


@dataclass
class Bench:
    """A gateway that is up, what is behind it, and a worker by hand."""

    gateway: LiveGateway
    queue: MemoryQueue
    files: JobStore
    tokens: Mapping[str, str]
    seq: int = 0

    def ask(
        self, method: str, path: str, body: Any = None, *, who: str | None = "acme", headers: Mapping[str, str] = {}
    ) -> Reply:
        token = self.tokens.get(who) if who is not None else None
        return self.gateway.ask(method, path, body, token=token, headers=headers)

    def submit(self, who: str = "acme", **told: Any) -> dict[str, Any]:
        reply = self.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi"}, **told}, who=who)
        assert reply.status == 201, reply.body
        job: dict[str, Any] = reply.json()
        return job

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str] = {}) -> Iterator[HTTPResponse]:
        """Open a path and read its answer as it comes."""
        connection, answer = self.gateway.open("GET", path, token=self.tokens["acme"], headers=headers)
        try:
            yield answer
        finally:
            answer.close()
            connection.close()

    def waits(self, kind: str) -> None:
        """Return once a request waits long."""
        registry = self.gateway.parts.metrics.registry
        for _ in range(MOST_LOOKS):
            if registry.get_sample_value("modelrepo_gateway_waits", {"kind": kind}):
                return
            self.ask("GET", "/healthz", who=None)
        raise AssertionError(f"nobody waits: {kind}")

    def claim(self, model: str = "toy") -> Claim:
        """Lease the next job, as a worker would."""
        self.seq += 1
        session = self.queue.hello(WorkerInfo(f"w{self.seq}", "box", 1))
        (claim,) = self.queue.claim(session, 1, [Offer("0", model, "v1", ("run",))])
        self.session = session
        return claim

    def finish(self, claim: Claim, result: Any = None, *, output: Path | None = None) -> None:
        """End an attempt well, with a file if there is one."""
        outputs: tuple[OutputFile, ...] = ()
        if output is not None:
            outputs = (self.files.put_output(claim.job_id, claim.created_at, claim.fence, "image", output),)
        self.queue.finish(self.session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, result, outputs))


@contextmanager
def bench(
    repo: Repository,
    folder: Path,
    *,
    settings: GatewaySettings | None = None,
    tokens: bool = True,
    rules: AddressRules | None = None,
    files: JobStore | None = None,
    timing: Timing | None = None,
) -> Iterator[Bench]:
    """Start a gateway over a fresh queue."""
    queue = MemoryQueue(timing=timing)
    store = files or JobStore((folder / "files").as_uri())
    made = {name: queue.tokens.create(name, grant)[1] for name, grant in GRANTS.items()} if tokens else {}
    parts = assemble(settings or GatewaySettings(token_cache_s=0.0), queue, repo, store, rules=rules)
    with LiveGateway(parts) as gateway:
        yield Bench(gateway, queue, store, made)
