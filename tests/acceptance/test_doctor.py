"""`modelrepo doctor` and `doctor --worker`, on a real S3 server, real uv and a repository of this box."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from modelrepo import IndexSettings, PushOptions, Repository
from modelrepo.diagnosis import Diagnosis, Finding, Standing
from modelrepo.environments import EnvironmentCache
from modelrepo.stores.opening import open_store
from modelrepo_runtime.accelerators import Box, FakeAccelerator
from modelrepo_runtime.worker.fitness import diagnose_version, diagnose_worker
from modelrepo_runtime.worker.settings import WorkerSettings, load_settings

from .packages import make_index, make_wheel, served
from .test_environments import project

GIB = 2**30
OK, WARN, FAIL = Standing.OK, Standing.WARN, Standing.FAIL
SPEC = "contract: 1\nname: hello\nentrypoint: model:Hello\n"
NOWHERE = "http://127.0.0.1:1/simple"


class Bucket(Protocol):
    """What the fixture `seaweed` gives."""

    url: str


def doctor(*args: str, code: int, environ: Mapping[str, str] | None = None) -> Any:
    command = [sys.executable, "-m", "modelrepo_cli", "doctor", *args, "--json"]
    environment = {**os.environ, **(environ or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def by_name(document: Any) -> dict[str, Any]:
    return {finding["about"]: finding for finding in document["findings"]}


def test_a_bucket_is_diagnosed_and_left_as_it_was(seaweed: Bucket) -> None:
    Repository.init(seaweed.url)
    document = doctor("--repo", seaweed.url, code=0)
    found = by_name(document)
    assert document["ok"]
    assert found["store"]["facts"]["bucket"] == seaweed.url.removeprefix("s3://")
    assert "AWS_ACCESS_KEY_ID" in found["credentials"]["found"]
    assert found["probe"]["facts"]["winners"] == [1, 1, 1]
    assert abs(found["clock"]["facts"]["ahead_s"]) < 5
    assert found["throughput up"]["facts"]["bytes_per_s"] > 0
    for about in ("latency of stat", "latency of read", "latency of create", "cache", "uv", "interpreters", "versions"):
        assert about in found
    assert sorted(stat.key for stat in open_store(seaweed.url).list("")) == ["repository.json", "store.json"]


def test_the_exit_code_tells_unreachable_from_out_of_order(tmp_path: Path) -> None:
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    document = doctor("--repo", "s3://some-bucket", code=5, environ=nowhere)
    assert by_name(document)["repository"]["unreachable"]
    assert "uv" in by_name(document)
    assert not doctor("--repo", str(tmp_path / "none"), code=1)["ok"]
    doctor("model@v1", code=2)
    assert by_name(doctor("--worker", code=0))["accelerators"]["standing"] == "ok"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    make_index(tmp_path / "index", [make_wheel(tmp_path / "wheels", "greeting")])
    with served(tmp_path / "index") as address:
        yield address


def publish(folder: Path, *dependencies: str, spec: str = "", index: str = NOWHERE, rest: str = "") -> Repository:
    """Push hello@v1, whose packages are in no bundle."""
    model = project(folder / "hello", *dependencies, rest=rest)
    (model / "model.yaml").write_text(SPEC + spec)
    (model / "model.py").write_text("class Hello: pass\n")
    (model / "weights.bin").write_bytes(os.urandom(100_000))
    repository = Repository.init(str(folder / "repository"))
    settings = IndexSettings(default_index=index)
    repository.push(model, PushOptions(lock=True, check="none", index=settings, cache=folder / "pusher"))
    return repository


def settings(folder: Path, **changed: Any) -> WorkerSettings:
    told, _ = load_settings({"cache": str(folder / "worker"), "default_index": NOWHERE}, {}, None)
    return replace(told, **changed)


def box(*memory_bytes: int) -> Box:
    accelerator = FakeAccelerator(memory_bytes)
    return Box(accelerator, accelerator.probe())


def fits(repository: Repository, told: WorkerSettings, here: Box, **secrets: str) -> dict[str, Finding]:
    return {each.about: each for each in diagnose_version(told, repository, "hello@v1", box=here, environ=secrets)}


def test_a_version_that_fits_says_how(tmp_path: Path) -> None:
    repository = publish(tmp_path, spec="checkpoints: {weights: weights.bin}\n")
    found = fits(repository, settings(tmp_path), box(24 * GIB))
    assert Diagnosis(tuple(found.values())).ok, found
    assert found["slot"].found == "cuda:0"
    assert found["cache"].facts["missing_bytes"] > 100_000
    assert found["interpreter"].facts["path"]
    assert "no index is needed" in found["environment"].found


def test_each_reason_why_a_version_does_not_fit_is_said(tmp_path: Path) -> None:
    spec = "secrets: [TOKEN]\nhost: {commands: {no-such-command: '*'}}\naccelerators: [{when: 'rocm', extra: rocm}]\n"
    repository = publish(tmp_path, spec=spec, rest="[project.optional-dependencies]\nrocm = []\n")
    found = fits(repository, settings(tmp_path), box(24 * GIB))
    for about, part in (("secrets", "TOKEN"), ("host needs", "no-such-command"), ("extra", "rocm")):
        assert found[about].standing is FAIL
        assert part in found[about].found
    assert found["slot"].standing is FAIL
    assert fits(repository, settings(tmp_path), box(24 * GIB), MODELREPO_SECRET_TOKEN="x")["secrets"].standing is OK


def test_packages_are_looked_for_in_bundles_and_then_in_the_index(tmp_path: Path, index: str) -> None:
    repository = publish(tmp_path, "greeting", index=index)
    found = fits(repository, settings(tmp_path), box())
    assert found["environment"].standing is FAIL
    assert found["environment"].unreachable
    found = fits(repository, settings(tmp_path, default_index=index), box())
    assert found["environment"].facts["from_index"] == ["greeting==1.0"]
    assert found["environment"].standing is OK
    empty = make_index(tmp_path / "empty", [make_wheel(tmp_path / "other", "other")])
    with served(empty) as address:
        found = fits(repository, settings(tmp_path, default_index=address), box())
    assert found["environment"].standing is FAIL
    assert "modelrepo vendor hello@v1" in found["environment"].advice


def test_an_environment_that_is_here_is_known_in_the_link_mode_of_the_worker(tmp_path: Path) -> None:
    repository = publish(tmp_path)
    record = repository.version("hello", "v1").manifest.environment
    EnvironmentCache(tmp_path / "worker", link_mode="copy").ensure(record, extra=None)
    for mode, built in (("copy", True), ("hardlink", False)):
        assert fits(repository, settings(tmp_path, link_mode=mode), box())["environment"].facts["built"] is built


def test_a_cache_that_is_too_small_is_said_to_be(tmp_path: Path) -> None:
    repository = publish(tmp_path, spec="checkpoints: {weights: weights.bin}\n")
    found = fits(repository, settings(tmp_path, cache_size=1000), box())
    assert found["cache"].standing is FAIL
    assert "--cache-size" in found["cache"].advice


def test_one_slot_that_fits_is_enough_and_the_others_are_told(tmp_path: Path) -> None:
    repository = publish(
        tmp_path, spec="stages: [{name: draw, on: gpu, gpu_memory: 20GiB}]\nhost: {gpu: {memory: 20GiB}}\n"
    )
    found = diagnose_version(settings(tmp_path, cpu_slots=1), repository, "hello@v1", box=box(24 * GIB), environ={})
    assert Diagnosis(found).ok
    others = [each for each in found if each.standing is WARN]
    assert others
    assert all("not in a slot on cpu" in each.found for each in others)


def test_a_worker_says_what_it_would_offer(tmp_path: Path) -> None:
    found = {each.about: each for each in diagnose_worker(settings(tmp_path, slots="1x2"), box(24 * GIB, 24 * GIB))}
    assert "cuda:1 Fake 1 24 GiB" in found["accelerators"].found
    assert found["slots"].facts["slots"] == ["cuda0"]
    found = {each.about: each for each in diagnose_worker(settings(tmp_path, slots="4x2"), box(24 * GIB))}
    assert found["slots"].standing is FAIL
