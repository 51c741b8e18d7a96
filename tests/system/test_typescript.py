"""The how-to for TypeScript, compiled strictly and run against a gateway. Needs node and npm."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, Outcome
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.memory.queue import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.testing.gateways import LiveGateway

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "typescript.md"
TYPESCRIPT = "typescript@5.9.2"
PYPROJECT = '[project]\nname = "m"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = []\n'
MODEL = """\
contract: 1
name: toy
entrypoint: model:Model
inputs:
  text: {type: string, required: true}
  image: {format: file}
"""


@pytest.fixture
def compiler(tmp_path: Path) -> list[str]:
    assert shutil.which("node"), "node is missing: install node and npm (Debian: apt install nodejs npm)"
    assert shutil.which("npm"), "npm is missing: install node and npm (Debian: apt install nodejs npm)"
    install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(tmp_path / "npm")]
    installed = subprocess.run([*install, TYPESCRIPT], capture_output=True, text=True, timeout=240, check=False)
    assert installed.returncode == 0, installed.stderr
    return [str(tmp_path / "npm" / "node_modules" / ".bin" / "tsc")]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[LiveGateway, str]]:
    repository = Repository.init((tmp_path / "repository").as_uri(), by="tests")
    source = tmp_path / "toy"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT + "[tool.uv]\npackage = false\n")
    (source / "model.yaml").write_text(MODEL)
    (source / "model.py").write_text("class Model:\n    def load(self, ctx): pass\n    def run(self, job): return {}\n")
    repository.promotions.promote("toy", repository.push(source, PushOptions(check="none", lock=True)).version)
    queue, files = MemoryQueue(), JobStore((tmp_path / "files").as_uri())
    _, token = queue.tokens.create("shop", Grant(Role.SUBMIT, tenant="acme"))
    parts = assemble(GatewaySettings(), queue, repository, files)
    worker = threading.Thread(target=work, args=(queue, files, tmp_path), daemon=True)
    with LiveGateway(parts) as live:
        worker.start()
        yield live, token
    worker.join(10)


def work(queue: MemoryQueue, files: JobStore, folder: Path) -> None:
    """Do one job as a worker would, once it is there."""
    session = queue.hello(WorkerInfo("w", "box", 1))
    waiter = queue.waiter(["toy"])
    seq = 0
    while not (claims := queue.claim(session, seq, [Offer("0", "toy", "v1", ("run",))])):
        waiter.wait(0.2)
        seq += 1
    (claim,) = claims
    (folder / "made.txt").write_bytes(files.read(claim.files["image"]).upper())
    output = files.put_output(claim.job_id, claim.created_at, claim.fence, "picture", folder / "made.txt")
    queue.progress(claim.job_id, claim.fence, 0.5, "half")
    queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, {"text": "HELLO"}, (output,)))


def test_the_how_to_compiles_strictly_and_runs(
    compiler: list[str], gateway: tuple[LiveGateway, str], tmp_path: Path
) -> None:
    live, token = gateway
    folder = tmp_path / "product"
    folder.mkdir()
    (code,) = re.findall(r"^```ts\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "submit.ts").write_text(code)
    (folder / "modelrepo.ts").write_bytes(live.ask("GET", "/v1/types.ts").body)
    (folder / "package.json").write_text(json.dumps({"type": "module"}))
    (command,) = re.findall(r"^\$ npx -p (?:\S+) tsc (.*)$", PAGE.read_text(), re.MULTILINE)
    compiled = subprocess.run(
        [*compiler, *command.split()], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
    environment = {**os.environ, "MODELREPO_QUEUE": live.url, "MODELREPO_TOKEN": token}
    ran = subprocess.run(
        ["node", "submit.js"], cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "queued true"
    assert "succeeded 1" in lines
    assert lines[-3:] == ['result {"text":"HELLO"}', "picture A CAT", "refused 422 invalid_job_input false"]
