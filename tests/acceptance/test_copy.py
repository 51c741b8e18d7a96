"""Copies between real stores: a local disk and a real S3 server, with processes that race and are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelrepo import Repository, layout
from modelrepo.copying.repository_copy import CopyOptions
from modelrepo.stores.opening import open_store
from modelrepo_cli.main import main
from tests.conftest import Bucket
from tests.unit.copying.conftest import add_bundle, contents, put_version

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
Json = Callable[..., Any]
LARGE = os.urandom(1 << 20) * 17  # one chunk beyond what a small request carries

KILLED = """
import os, signal, sys
from modelrepo.repository import Repository
from modelrepo.stores.faults import Fault, faulty
from modelrepo.stores.founding import Founded
from modelrepo.stores.opening import open_store

source, target, at, moment = sys.argv[1:]
store = faulty(open_store(target), Fault(int(at), moment, "kill"), on_kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
Repository.open(source).copy_to(Repository(Founded("", store)), "tiny")
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Json:
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0) -> Any:
        assert main([*args, "--json"]) == code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


PAIRS = ("local to bucket", "bucket to bucket", "bucket to local")
every_pair = pytest.mark.parametrize("pair", PAIRS, indirect=True)
one_pair = pytest.mark.parametrize("pair", PAIRS if FULL else PAIRS[1:2], indirect=True)


@pytest.fixture
def pair(request: pytest.FixtureRequest, seaweed: Bucket, tmp_path: Path) -> tuple[str, str]:
    """The URLs of two founded, empty repositories."""
    source, _, target = request.param.partition(" to ")
    urls = {"local": str(tmp_path / "repo"), "bucket": f"{seaweed.url}/one"}
    return founded(urls[source]), founded(f"{seaweed.url}/two" if source == target else urls[target])


@pytest.fixture
def local_pair(tmp_path: Path) -> tuple[str, str]:
    return founded(str(tmp_path / "repo")), founded(str(tmp_path / "other"))


def founded(url: str) -> str:
    """Found a repository without the race that probes its store, which takes a bucket many seconds."""
    store = open_store(url)
    store.create(layout.REPOSITORY, b'{"format": 1, "id": "tested"}')
    identity = {"endpoint": store.identity.endpoint, "bucket": store.identity.bucket}
    store.create(layout.STORE, json.dumps({"format": 1, "creates_if_absent": True, **identity}).encode())
    return url


def fill(url: str) -> dict[str, bytes]:
    """Put two versions and a bundle into a repository; returns what a copy is to hold."""
    store = open_store(url)
    put_version(store, "v1", weights=(b"x" * (16 << 10), LARGE))
    put_version(store, "v2", weights=(LARGE, b"y"))
    add_bundle(store)
    return copied(url)


def copied(url: str) -> dict[str, bytes]:
    here = (layout.PUSHES, layout.REPOSITORY, layout.STORE, layout.PROBES)
    return contents(open_store(url), without=here)


@every_pair
def test_a_copy_holds_the_same_and_run_again_moves_nothing(pair: tuple[str, str], cli: Json) -> None:
    source, target = pair
    whole = fill(source)
    planned = cli("copy", "--all", source, target, "--dry-run")
    assert copied(target) == {}
    done = cli("copy", "--all", source, target, "--jobs", "3")
    assert copied(target) == whole
    keys = ("version", "objects", "new_bytes", "digest")
    assert [[each[key] for key in keys] for each in planned["versions"]] == [
        [each[key] for key in keys] for each in done["versions"]
    ]
    again = cli("copy", "tiny", source, target, "--versions", "last:1")
    assert [(each["version"], each["outcome"], each["new_bytes"]) for each in again["versions"]] == [
        ("v2", "present", 0)
    ]


def test_what_is_taken_ends_with_4_and_the_rest_is_copied(local_pair: tuple[str, str], cli: Json) -> None:
    source, target = local_pair
    fill(source)
    theirs = put_version(open_store(target), "v1", note="theirs")
    answer = cli("copy", "--all", source, target, code=4)
    assert [each["outcome"] for each in answer["versions"]] == ["failed", "copied"]
    assert answer["versions"][0]["error"]["code"] == "version_exists"
    assert theirs in answer["versions"][0]["error"]["message"]
    alone = cli("copy", "tiny@v1", source, target, code=4)
    assert alone["error"]["code"] == "version_exists"


def test_an_object_that_was_swapped_in_the_source_does_not_arrive(local_pair: tuple[str, str], cli: Json) -> None:
    source, target = local_pair
    fill(source)
    store = open_store(source)
    key = next(stat.key for stat in store.list(layout.OBJECTS) if stat.size_bytes == len(LARGE))
    store.replace(key, b"z" * len(LARGE))
    answer = cli("copy", "tiny@v1", source, target, code=1)
    assert answer["error"]["code"] == "corrupt"
    assert answer["error"]["digest"] == layout.digest_of(key)
    assert not [
        stat.key for stat in open_store(target).list("") if stat.key in (key, "models/tiny/versions/v1/manifest.json")
    ]


@one_pair
def test_two_processes_that_copy_at_once_both_succeed(pair: tuple[str, str]) -> None:
    source, target = pair
    whole = fill(source)
    command = [sys.executable, "-m", "modelrepo_cli", "copy", "--all", source, target, "--json"]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in racing]
    assert [process.returncode for process in racing] == [0, 0]
    assert all(each["error"] is None for answer in answers for each in answer["versions"])
    assert copied(target) == whole


@one_pair
def test_killed_anywhere_it_leaves_nothing_torn_and_goes_on(pair: tuple[str, str], tmp_path: Path) -> None:
    source, target = pair
    whole = fill(source)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    moments = range(1, 40) if FULL else (4, 9)
    for at in moments:
        for moment in ("before", "after") if FULL else ("after",):
            killed = subprocess.run([sys.executable, script, source, target, str(at), moment], timeout=120, check=False)
            if killed.returncode == 0:
                break
            assert killed.returncode == -signal.SIGKILL
            found = copied(target)
            assert found.items() <= whole.items()
            for stat in open_store(target).list(layout.MODELS):
                if layout.version_of(stat.key):
                    manifest = Repository.open(target).resolve("tiny@" + stat.key.split("/")[3]).manifest
                    assert {layout.object_(digest) for digest in manifest.objects()} <= found.keys()
    report = Repository.open(source).copy_to(Repository.open(target), "tiny", CopyOptions(jobs=2))
    assert not report.errors()
    assert {key for key in whole.keys() - copied(target).keys() if not key.endswith("/model.yaml")} == set()


def test_what_was_copied_is_live_there_where_it_is_asked_for(local_pair: tuple[str, str], cli: Json) -> None:
    source, target = local_pair
    fill(source)
    cli("promote", "tiny@v1", "--repo", source)
    cli("copy", "--all", source, target)
    assert cli("list", "--repo", target)["models"][0]["active"] is None
    answer = cli("copy", "--all", source, target, "--with-active")
    assert [(each["version"], each["generation"]) for each in answer["active"]] == [("v1", 1)]
    (entry,) = cli("history", "tiny", "--repo", target)["history"]
    assert entry["reason"].startswith("copied from ")


@pytest.mark.parametrize(
    ("args", "code", "kind"),
    [
        (("tiny", "{repo}"), 2, "usage"),
        (("--all", "{repo}"), 2, "usage"),
        (("--all", "tiny", "{repo}", "{other}"), 2, "usage"),
        (("tiny", "{repo}", "{repo}"), 2, "invalid_input"),
        (("tiny@v1", "{repo}", "{other}", "--versions", "active"), 2, "invalid_input"),
        (("tiny", "{repo}", "{other}", "--versions", "newest"), 2, "invalid_input"),
        (("tiny", "{repo}", "{other}", "--limit-rate", "fast"), 2, "usage"),
        (("tiny", "{repo}", "{other}", "--jobs", "0"), 2, "usage"),
        (("tiny", "{repo}", "{repo}/nothing"), 3, "repository_not_found"),
        (("nobody", "{repo}", "{other}"), 3, "model_not_found"),
        (("tiny@v9", "{repo}", "{other}"), 3, "version_not_found"),
    ],
)
def test_what_cannot_be_copied_is_said(
    args: tuple[str, ...], code: int, kind: str, local_pair: tuple[str, str], cli: Json
) -> None:
    repo, other = local_pair
    put_version(open_store(repo))
    before = copied(other)
    answer = cli("copy", *(arg.format(repo=repo, other=other) for arg in args), code=code)
    assert answer["error"]["code"] == kind, answer
    assert copied(other) == before


def test_a_store_that_is_not_trusted_is_not_copied_to(tmp_path: Path, local_pair: tuple[str, str], cli: Json) -> None:
    repo, other = local_pair
    put_version(open_store(repo))
    (tmp_path / "other" / "store.json").unlink()
    assert cli("copy", "tiny", repo, other, code=4)["error"]["code"] == "store_not_trusted"
    assert cli("copy", "tiny", repo, other, "--dry-run")["versions"][0]["outcome"] == "planned"
