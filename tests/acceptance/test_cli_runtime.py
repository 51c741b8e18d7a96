"""The runtime's verbs, run as commands beside a real worker process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODEL_YAML = """\
contract: 1
name: cats
entrypoint: model:Model
inputs:
  mode: {type: string, enum: [say, reject, fail, wait, draw, huge], default: say}
  text: {type: string, default: hello}
  image: {type: string, format: file, maxBytes: 1KiB}
outputs: {picture: {format: file, contentType: image/png}}
stages: [{name: run, on: cpu}]
config: {mark: "!"}
"""
MODEL_PY = """\
import time

class Model:
    def load(self, ctx):
        self.mark = ctx.config["mark"]

    def run(self, job):
        mode = job.inputs["mode"]
        print("the mode is", mode)
        if mode == "reject":
            job.reject("too_rude", "say please")
        if mode == "fail":
            raise ValueError("no cat today")
        if mode == "draw":
            job.output("picture").write_bytes(b"\\x89PNG" + job.file("image").read_bytes())
        if mode == "huge":
            with open(job.output("picture"), "wb") as file:
                file.truncate(5 * 2**30 + 1)
        if mode == "wait":
            job.progress(0.5, "waiting")
            for _ in range(6000):
                job.check()
                time.sleep(0.01)
        return {"text": job.inputs["text"] + self.mark}
"""
PYPROJECT = '[project]\nname = "cats"\nversion = "0"\nrequires-python = ">=3.11"\n[tool.uv]\npackage = false\n'
LIMIT_S = 60.0


@dataclass(frozen=True)
class Site:
    """A repository with two versions of a model, a queue and perhaps a worker, reached through commands alone."""

    root: Path
    environment: dict[str, str]

    def run(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelrepo_cli", *args],
            cwd=self.root,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def json(self, *args: str, code: int = 0, stdin: str | None = None) -> Any:
        done = self.run(*args, "--json", stdin=stdin)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < end, self.run("status").stdout
            time.sleep(0.1)

    def worker(self) -> subprocess.Popen[bytes]:
        with (self.root / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modelrepo_cli", "worker", "--cache", "cache", "--name", "box"],
                cwd=self.root,
                env=self.environment,
                stdout=log,
                stderr=log,
            )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MODELREPO_") and key != "CI"}
    found = Site(root, {**kept, "XDG_CACHE_HOME": str(root / "user-cache"), "XDG_CONFIG_HOME": str(root / "config")})
    (root / "modelrepo.toml").write_text('repo = "repo"\nqueue = "queue.db"\n')
    model = root / "cats"
    model.mkdir()
    (model / "model.py").write_text(MODEL_PY)
    (model / "pyproject.toml").write_text(PYPROJECT)
    (model / "model.yaml").write_text(MODEL_YAML)
    found.json("init")
    found.json("push", "cats", "--promote")
    (model / "model.yaml").write_text(MODEL_YAML.replace('"!"', '"?"'))
    found.json("push", "cats", "--promote")
    return found


@pytest.fixture(scope="module")
def served(site: Site) -> Iterator[Site]:
    worker = site.worker()
    try:
        site.until(lambda: "cats@v2" in site.run("status").stdout)
        yield site
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0


def test_a_folder_and_a_version_run_without_a_queue(site: Site) -> None:
    (site.root / "in.png").write_bytes(b"cat")
    drawn = site.json("run", "./cats", "-i", "mode=draw", "-i", "image=@in.png", "--output", "drawn")
    assert Path(drawn["outputs"]["picture"]) == Path("drawn/picture.png")
    assert (site.root / "drawn" / "picture.png").read_bytes() == b"\x89PNGcat"
    assert site.json("run", "cats@v1", "--input", "-", stdin='{"text": "hi"}')["result"] == {"text": "hi!"}
    plain = site.run("run", "cats@v1")
    assert (plain.returncode, json.loads(plain.stdout)) == (0, {"text": "hello!"})
    assert "the mode is say" in plain.stderr


def test_what_a_generator_yields_is_shown_as_it_comes(site: Site) -> None:
    counts = site.root / "counts"
    counts.mkdir()
    (counts / "model.yaml").write_text("contract: 1\nname: counts\nentrypoint: model:Counts\n")
    (counts / "pyproject.toml").write_text(PYPROJECT)
    (counts / "model.py").write_text(
        "class Counts:\n    def load(self, ctx): pass\n    def run(self, job):\n        yield {'n': 1}\n"
        "        return 2\n"
    )
    done = site.run("run", "./counts")
    assert (done.returncode, json.loads(done.stdout)) == (0, 2)
    assert 'partial {"n": 1}' in done.stderr


def test_a_run_loads_once_for_many_jobs(site: Site) -> None:
    lines = '{"text": "a"}\n\n{"mode": "fail"}\n{"text": "b"}\n'
    done = site.run("run", "./cats", "--repeat", stdin=lines)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["cause"] for answer in answers] == ["succeeded", "exception", "succeeded"]
    assert answers[2]["result"] == {"text": "b?"}
    assert done.returncode == 1


def test_a_run_that_fails_says_why(site: Site) -> None:
    error = site.json("run", "./cats", "-i", "mode=reject", code=1)["error"]
    assert error["message"] == "the job ended rejected: say please"
    done = site.run("run", "./cats", "-i", "mode=fail")
    assert done.returncode == 1
    assert "error: the job ended exception: ValueError: no cat today" in done.stderr
    assert "Traceback" in done.stderr


def test_the_debugger_opens_where_model_code_fails(site: Site) -> None:
    done = site.run("run", "./cats", "-i", "mode=fail", "--pdb", stdin="p 'in the ' + mode\nquit\n")
    assert "in the fail" in done.stdout + done.stderr


def test_a_shell_has_the_models_environment(site: Site) -> None:
    done = site.run("shell", "./cats", stdin="import model; print(model.Model, ctx.config)\n")
    assert "<class 'model.Model'> {'mark': '?'}" in done.stdout + done.stderr


def test_a_job_is_served(served: Site) -> None:
    job = served.json("submit", "cats", "-i", "text=cat", "--tier", "api", "--metadata", "for=tests", "--wait")
    assert (job["status"], job["result"], job["tier"]) == ("succeeded", {"text": "cat?"}, "api")
    assert job["metadata"] == {"for": "tests"}
    assert served.json("jobs", "show", job["id"])["version"] == "v2"
    assert served.json("jobs", "logs", job["id"])["log"].strip() == "the mode is say"
    assert "succeeded" in served.run("explain", job["id"]).stdout
    assert served.json("submit", "cats@v1", "-i", "text=cat")["version"] == "v1"


def test_files_go_in_and_come_out(served: Site) -> None:
    (served.root / "in.png").write_bytes(b"cat")
    job = served.json("submit", "cats", "-i", "mode=draw", "-i", "image=@in.png", "--wait")
    (output,) = job["outputs"]
    assert (output["name"], output["bytes"]) == ("picture", 7)
    assert Path(output["url"].removeprefix("file://")).read_bytes() == b"\x89PNGcat"
    (served.root / "large.png").write_bytes(bytes(2000))
    error = served.json("submit", "cats", "-i", "image=@large.png", code=2)["error"]
    assert (error["code"], error["pointer"]) == ("invalid_job_input", "/image")


def test_jobs_that_do_not_succeed(served: Site) -> None:
    error = served.json("submit", "cats", "-i", "mode=reject", "--wait", code=1)["error"]
    assert error["job"]["error"] == {"code": "too_rude", "message": "say please", "retryable": False}
    error = served.json("submit", "cats", "-i", "mode=huge", "--wait", code=1)["error"]
    assert error["job"]["error"]["code"] == "output_too_large"
    assert "picture has 5368709121 bytes" in error["message"]


def test_one_key_makes_one_job(served: Site) -> None:
    first = served.json("submit", "cats", "--idempotency-key", "a")
    assert served.json("submit", "cats", "--idempotency-key", "a")["id"] == first["id"]
    assert served.json("submit", "cats", "-i", "text=x", "--idempotency-key", "a", code=2)["error"]


def test_a_job_is_cancelled(served: Site) -> None:
    job = served.json("submit", "cats", "-i", "mode=wait")["id"]
    served.until(lambda: served.json("jobs", "show", job)["progress"] == 0.5)
    assert "50% waiting" in served.run("jobs", "--status", "running").stdout
    error = served.json("submit", "cats", "--wait", "0.1s", code=6)["error"]
    assert error["code"] == "not_converged"
    served.json("jobs", "cancel", job)
    served.until(lambda: served.json("jobs", "show", job)["status"] == "cancelled")


def test_failed_jobs_are_sent_back(served: Site) -> None:
    job = served.json("submit", "cats", "-i", "mode=fail", "--wait", code=1)["error"]["job"]["id"]
    assert "no cat today" in served.run("jobs", "logs", job).stdout
    named = served.json("jobs", "retry", "--where", "model=cats", "--dry-run")
    assert job in named["matching"]
    assert named["retried"] == []
    assert served.json("jobs", "retry", job)["retried"] == [job]
    assert served.json("jobs", "show", job)["status"] in ("queued", "running")
    served.json("jobs", "cancel", job)


def test_a_second_worker_for_the_slot_is_refused(served: Site) -> None:
    error = served.json("worker", "--cache", "cache", code=4)["error"]
    assert error["code"] == "already_served"


def test_tiers_are_set(served: Site) -> None:
    served.json("tiers", "set", "gold", "--slo", "5m", "--allowed-miss", "2%")
    tiers = {tier["name"]: tier for tier in served.json("tiers")["tiers"]}
    assert (tiers["gold"]["slo_s"], tiers["gold"]["allowed_miss"]) == (300.0, 0.02)
    assert served.json("tiers", "default", "gold") == {"default": "gold"}
    assert served.json("submit", "cats")["tier"] == "gold"
    served.json("tiers", "default", "free")


def test_a_rollback_ends_what_runs_and_the_job_ends_on_the_other_version(served: Site) -> None:
    served.json("promote", "cats@v2", "--force", "--wait", "60s")
    job = served.json("submit", "cats", "-i", "mode=wait")["id"]
    served.until(lambda: served.json("jobs", "show", job)["progress"] == 0.5)
    back = served.json("rollback", "cats", "--now", "--wait", "30s", "--reason", "bad cats")
    assert (back["version"], back["converged"]) == ("v1", True)
    served.until(lambda: served.json("jobs", "show", job)["version"] == "v1")
    served.json("jobs", "cancel", job)
    slot = served.json("status", "cats")["workers"][0]["slots"][0]
    assert (slot["version"], slot["state"]) == ("v1", "open")
    served.json("unblock", "cats@v2")
    served.json("promote", "cats@v2", "--wait", "60s")
