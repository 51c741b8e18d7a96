"""Bad input of every kind, given to the real command: one line, the exit code, JSON, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelrepo_cli.main import main

# What failed, on which object, what was found; what to do. One line that starts small and does not end in a full stop.
STYLE = re.compile(r"error: (?![A-Z][a-z]+ ).{20,}[^.\n]\n")

MODEL_YAML = """\
contract: 1
name: cats
entrypoint: model:Model
inputs:
  text: {type: string, default: hello}
  times: {type: integer, minimum: 1, default: 1}
stages: [{name: run, on: cpu}]
"""
MODEL_PY = """\
class Model:
    def load(self, ctx): pass
    def run(self, job): return {"text": job.inputs["text"]}
"""
PYPROJECT = """\
[project]
name = "cats"
version = "0"
requires-python = ">=3.11"
dependencies = []
[tool.uv]
package = false
"""


@dataclass(frozen=True)
class Place:
    """A repository, a queue and a model folder, each fresh."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    model: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.root / "cats")
        self.model.mkdir()
        self.write("model.yaml", MODEL_YAML)
        self.write("model.py", MODEL_PY)
        self.write("pyproject.toml", PYPROJECT)

    def write(self, path: str, text: str) -> None:
        target = self.model / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def add(self, text: str) -> None:
        self.write("model.yaml", MODEL_YAML + text)

    def ok(self, *args: str) -> Any:
        """Run a command that must succeed, and return its JSON."""
        code = main([*args, "--json"])
        shown = self.capsys.readouterr()
        assert code == 0, shown.err
        return json.loads(shown.out)

    def built(self) -> list[Path]:
        """List what was made on this box for versions to run."""
        folders = [self.root / "cache" / "modelrepo" / name for name in ("environments", "versions")]
        return [path for folder in folders if folder.exists() for path in folder.iterdir()]

    def refused(self, *args: str, code: int, kind: str, says: str) -> Mapping[str, Any]:
        """Run a command that must be refused, twice: for people and for machines. Nothing may change."""
        before = self.tree()
        assert main(list(args)) == code, self.capsys.readouterr()
        shown = self.capsys.readouterr()
        line, _, log = re.sub(r"modelrepo-check-\w+", "modelrepo-check", shown.err).partition("\n")
        assert shown.out == ""
        assert STYLE.fullmatch(line + "\n"), line
        assert all(rest.startswith("  | ") for rest in log.splitlines()), log
        assert re.search(says, line), line
        assert main([*args, "--json"]) == code
        printed = re.sub(r"modelrepo-check-\w+", "modelrepo-check", self.capsys.readouterr().out)
        error: Mapping[str, Any] = json.loads(printed)["error"]
        assert error["code"] == kind
        assert line == f"error: {error['message']}"
        assert self.tree() == before
        return error

    def tree(self) -> Mapping[str, str]:
        """Return every file that is kept, with its digest; caches, locks and leases come and go."""
        kept = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and not re.match(r"cache/|repo/pushes/|queue|.*\.lock$|.*__pycache__", name):
                kept[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return kept


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in list(os.environ):
        if name.startswith("MODELREPO_") or name == "CI":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "queue-state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELREPO_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("MODELREPO_QUEUE", f"sqlite:///{tmp_path}/queue.db")
    monkeypatch.chdir(tmp_path)
    found = Place(tmp_path, capsys)
    found.ok("init")
    return found


@pytest.fixture
def published(place: Place) -> Place:
    place.ok("push", str(place.model), "--lock", "--check", "none", "--promote")
    return place


# model.yaml


def test_model_yaml_missing(place: Place) -> None:
    (place.model / "model.yaml").unlink()
    for verb in ("push", "check", "run"):
        place.refused(verb, str(place.model), code=2, kind="invalid_spec", says="model.yaml")


def test_model_folder_missing(place: Place) -> None:
    for verb in ("push", "check"):
        place.refused(verb, str(place.root / "dogs"), code=2, kind="invalid_spec", says="dogs")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("contract: 1\nname: [cats\n", None, "model.yaml:"),
        (MODEL_YAML + "entrypont: x\n", 8, "entrypoint"),
        (MODEL_YAML.replace("name: cats\n", ""), None, "name"),
        (MODEL_YAML.replace("contract: 1", "contract: 2"), 1, "contract"),
        (MODEL_YAML.replace("minimum: 1", "minimum: .nan"), 6, "number"),
        (MODEL_YAML.replace("model:Model", "model"), 3, "entrypoint"),
        ("- a\n", None, "model.yaml"),
    ],
)
def test_model_yaml_broken(place: Place, text: str, line: int | None, says: str) -> None:
    place.write("model.yaml", text)
    error = place.refused("push", str(place.model), code=2, kind="invalid_spec", says=says)
    assert line is None or error["line"] == line
    place.refused("check", str(place.model), code=2, kind="invalid_spec", says=says)


# entrypoint, lock, checkpoints


def test_entrypoint_that_does_not_import(place: Place) -> None:
    place.write("model.py", "import nosuchpackage\n")
    for args in (["push", str(place.model), "--lock"], ["check", str(place.model)]):
        error = place.refused(*args, code=1, kind="entrypoint_failed", says="model:Model .*/environments/.*/bin/python")
        assert "No module named 'nosuchpackage'" in error["log"]
    assert place.ok("list")["models"] == []


def test_entrypoint_that_does_not_import_shows_its_traceback_at_once_when_run(place: Place) -> None:
    place.write("model.py", "import nosuchpackage\n")
    assert main(["run", str(place.model)]) == 1
    shown = place.capsys.readouterr()
    assert shown.out == ""
    assert re.search("error: cats.* cannot start: .*nosuchpackage.*/bin/python", shown.err.splitlines()[-1])


def test_entrypoint_attribute_missing(place: Place) -> None:
    place.write("model.py", "class Other: pass\n")
    place.refused("push", str(place.model), "--lock", code=1, kind="entrypoint_failed", says="defines no 'Model'")


def test_lock_missing_where_it_must_be_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.refused("push", str(place.model), "--locked", code=2, kind="lock_out_of_date", says="uv lock")
    monkeypatch.setenv("CI", "true")
    place.refused("push", str(place.model), code=2, kind="lock_out_of_date", says="uv lock")


def test_lock_out_of_date(published: Place) -> None:
    published.write("pyproject.toml", PYPROJECT.replace("dependencies = []", 'dependencies = ["click"]'))
    published.refused("push", str(published.model), "--locked", code=2, kind="lock_out_of_date", says="uv lock")


@pytest.mark.parametrize("content", [None, "", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"])
def test_checkpoint_missing_empty_or_a_pointer(place: Place, content: str | None) -> None:
    place.add("checkpoints: {weights: checkpoints/weights.safetensors}\n")
    if content is not None:
        place.write("checkpoints/weights.safetensors", content)
    place.refused("push", str(place.model), "--lock", code=2, kind="invalid_checkpoint", says="'?weights'?")


def test_checkpoint_that_is_never_packed(place: Place) -> None:
    place.add("checkpoints: {weights: .venv/weights.bin}\n")
    place.write(".venv/weights.bin", "bytes")
    place.refused("push", str(place.model), "--lock", code=2, kind="invalid_checkpoint", says="never packed")


def test_checkpoint_of_which_the_patterns_leave_nothing(place: Place) -> None:
    place.add('checkpoints: {weights: {source: checkpoints, include: ["*.nothing"]}}\n')
    place.write("checkpoints/weights.bin", "bytes")
    place.refused("push", str(place.model), "--lock", code=2, kind="invalid_checkpoint", says="include")


# names, versions, references


def test_names_that_are_not_allowed(place: Place) -> None:
    place.write("model.yaml", MODEL_YAML.replace("name: cats", "name: Big Cats"))
    place.refused("push", str(place.model), "--lock", code=2, kind="invalid_spec", says="Big Cats")
    place.refused("promote", "Cats@v1", code=2, kind="invalid_name", says="'Cats'")
    place.refused("list", "../cats", code=2, kind="invalid_name", says="cats")


@pytest.mark.parametrize("version", ["latest", "active", "a b", "-v", "x" * 65])
def test_versions_that_are_not_allowed(place: Place, version: str) -> None:
    place.refused(
        "push", str(place.model), "--lock", f"--version={version}", code=2, kind="invalid_name", says="version"
    )


def test_version_that_exists(published: Place) -> None:
    published.refused(
        "push", str(published.model), "--version", "v1", "--check", "none", code=4, kind="version_exists", says="v1"
    )


def test_model_unknown(published: Place) -> None:
    for verb in (["show", "cat"], ["pull", "cat"], ["promote", "cat@v1"], ["history", "cat"], ["rollback", "cat"]):
        published.refused(*verb, code=3, kind="model_not_found", says="'?cats'?")
    published.refused("submit", "cat", code=3, kind="model_not_found", says="'?cats'?")
    published.refused("run", "cat@v1", code=3, kind="model_not_found", says="'?cats'?")


def test_version_unknown(published: Place) -> None:
    for verb in (["show", "cats@v11"], ["promote", "cats@v11"], ["diff", "cats@v1", "cats@v11"]):
        published.refused(*verb, code=3, kind="version_not_found", says="v1")


def test_pull_onto_something(published: Place) -> None:
    published.refused("pull", "cats@v1", str(published.model), code=2, kind="invalid_input", says="not an empty folder")


def test_a_sub_command_that_is_none(place: Place) -> None:
    place.refused("jobs", "sho", code=2, kind="usage", says="did you mean 'show'")


def test_nothing_to_roll_back_to(published: Place) -> None:
    published.refused("rollback", "cats", code=3, kind="version_not_found", says="cats")


@pytest.mark.parametrize(
    ("scheme", "package", "install"),
    [("gs", "gcsfs", "gcsfs"), ("az", "adlfs", "adlfs"), ("s3", "s3fs", r"'modelrepo-toolkit\[s3\]'")],
)
def test_bucket_whose_package_is_not_installed(
    place: Place, monkeypatch: pytest.MonkeyPatch, scheme: str, package: str, install: str
) -> None:
    for one in (package, "modelrepo.stores.s3"):
        monkeypatch.setitem(sys.modules, one, None)
    says = f"{scheme}:// needs .*: pip install {install}"
    place.refused("list", "--repo", f"{scheme}://bucket/models", code=1, kind="missing_extra", says=says)


def test_generation_that_has_passed(published: Place) -> None:
    published.refused("promote", "cats@v1", "--expect", "9", code=4, kind="generation_changed", says="9")


def test_version_that_is_blocked(published: Place) -> None:
    published.ok("push", str(published.model), "--check", "none")
    published.ok("block", "cats@v2", "--reason", "blurry")
    published.refused("promote", "cats@v2", code=4, kind="version_blocked", says="blurry")


def test_config_that_is_not_declared(published: Place) -> None:
    published.refused("promote", "cats@v1", "--set", "nosuch=1", code=2, kind="invalid_input", says="nosuch")


def test_config_of_another_type(published: Place) -> None:
    published.refused("promote", "cats@v1", "--set", "mark", code=2, kind="invalid_input", says="key=value")
    text = (published.model / "model.yaml").read_text()
    (published.model / "model.yaml").write_text(f"{text}config: {{gain: 1.0}}\n")
    published.ok("push", str(published.model), "--check", "none")
    published.refused("promote", "cats@v2", "--set", "gain=high", code=2, kind="invalid_input", says="another type")
    published.refused("promote", "cats@v2", "--set", "gain=true", code=2, kind="invalid_input", says="another type")
    published.ok("promote", "cats@v2", "--set", "gain=1.5")
    published.refused("promote", "cats@v1", code=2, kind="invalid_input", says="--unset KEY")
    published.refused(
        "promote", "cats@v2", "--unset", "mark", code=2, kind="invalid_input", says="overridden are: gain"
    )
    (published.model / "model.yaml").write_text(text)
    assert main(["push", str(published.model), "--check", "none", "--promote"]) == 2
    assert "--unset KEY" in published.capsys.readouterr().err


# repositories and stores


def test_no_repository_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELREPO_REPO")
    place.refused("list", code=2, kind="invalid_input", says="MODELREPO_REPO")


def test_repository_that_is_none(place: Place) -> None:
    place.refused(
        "list", "--repo", str(place.root / "none"), code=3, kind="repository_not_found", says="modelrepo init"
    )


def test_repository_of_a_newer_format(place: Place) -> None:
    (place.root / "repo" / "repository.json").write_text('{"format": 2, "id": "x"}')
    place.refused("list", code=1, kind="newer_format", says="format 2")
    place.refused("push", str(place.model), "--lock", code=1, kind="newer_format", says="format 2")


def test_manifest_of_a_newer_format(published: Place) -> None:
    manifest = published.root / "repo/models/cats/versions/v1/manifest.json"
    manifest.chmod(0o644)
    manifest.write_text('{"format": 2}')
    published.refused("show", "cats@v1", code=1, kind="newer_format", says="format 2")


def test_store_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        place.refused("list", "--repo", "s3://bucket/models", code=5, kind="unreachable", says=r"s3://bucket/models")


def test_store_that_refuses_our_credentials(place: Place, monkeypatch: pytest.MonkeyPatch, forbidding: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", forbidding)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    error = place.refused("list", "--repo", "s3://bucket/models", code=5, kind="forbidden", says=r"s3://bucket/models")
    assert "AWS_ACCESS_KEY_ID" in error["message"]


@pytest.fixture
def forbidding() -> Iterator[str]:
    """An S3 endpoint that answers 403 to everything."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


# this box


def test_python_that_is_not_on_this_box(place: Place) -> None:
    place.write("pyproject.toml", PYPROJECT.replace(">=3.11", "==3.99.*"))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    place.refused("push", str(place.model), "--lock", code=2, kind="interpreter_missing", says=f"3.99.*{here}")


def test_no_extra_for_this_accelerator(place: Place) -> None:
    place.add('accelerators: [{when: "cuda >= 99", extra: cu99}]\n')
    place.write(
        "pyproject.toml", PYPROJECT.replace("[tool.uv]", "[project.optional-dependencies]\ncu99 = []\n[tool.uv]")
    )
    for verb in ("run", "check", "shell"):
        place.refused(verb, str(place.model), code=2, kind="no_extra_fits", says="cuda >= 99")
    assert not place.built()


def test_host_need_that_is_not_met(place: Place) -> None:
    place.add('host: {commands: {nosuchtool: ">=6"}}\n')
    for verb in ("run", "check", "shell"):
        place.refused(verb, str(place.model), code=2, kind="host_need_unmet", says="nosuchtool")
    place.ok("push", str(place.model), "--lock", "--check", "none", "--promote")
    for verb in ("run", "shell"):
        place.refused(verb, "cats", code=2, kind="host_need_unmet", says="nosuchtool")
    assert not place.built()


def test_secret_that_is_missing(place: Place) -> None:
    place.add("secrets: [CAT_TOKEN]\n")
    for verb in ("run", "shell"):
        place.refused(verb, str(place.model), code=2, kind="secret_missing", says="MODELREPO_SECRET_CAT_TOKEN")
        says = f"a file in {place.root / 'nowhere'}"
        place.refused(
            verb,
            str(place.model),
            "--secrets-dir",
            str(place.root / "nowhere"),
            code=2,
            kind="secret_missing",
            says=says,
        )
    assert not place.built()


# jobs


@pytest.mark.parametrize(
    ("args", "pointer", "says"),
    [
        (["-i", "times=0"], "/times", "1"),
        (["-i", "times=often"], "/times", "integer"),
        (["-i", "txet=hi"], "/txet", "text"),
        (["--input", "@bad.json"], None, "JSON"),
        (["--input", "@list.json"], None, "object"),
    ],
)
def test_inputs_that_do_not_fit(published: Place, args: list[str], pointer: str | None, says: str) -> None:
    (published.root / "bad.json").write_text('{"text": ')
    (published.root / "list.json").write_text("[1]")
    for verb in (["submit", "cats"], ["run", str(published.model)]):
        error = published.refused(*verb, *args, code=2, kind="invalid_job_input", says=says)
        assert pointer is None or error["pointer"] == pointer
    assert published.ok("jobs")["jobs"] == []


def test_input_that_has_no_name_or_no_file(published: Place) -> None:
    published.refused("submit", "cats", "-i", "text", code=2, kind="invalid_input", says="key=value")
    published.refused("submit", "cats", "-i", "text=@none.txt", code=2, kind="invalid_input", says="none.txt")
    published.refused("submit", "cats", "--input", "f.json", code=2, kind="invalid_input", says="@FILE")


def test_tier_unknown(published: Place) -> None:
    published.refused("submit", "cats", "--tier", "fre", code=2, kind="invalid_input", says="'?free'?")
    published.refused("tiers", "default", "fre", code=2, kind="invalid_input", says="'?free'?")


def test_job_unknown(published: Place) -> None:
    for verb in (["jobs", "show"], ["jobs", "logs"], ["jobs", "cancel"], ["jobs", "retry"], ["explain"]):
        published.refused(*verb, "job_none", code=3, kind="job_not_found", says="job_none")


def test_jobs_to_retry_that_nobody_named(published: Place) -> None:
    published.refused("jobs", "retry", code=2, kind="invalid_input", says="--where")
    published.refused("jobs", "retry", "--where", "colour=red", code=2, kind="invalid_input", says="colour")


def test_usage(published: Place) -> None:
    cases: list[tuple[list[str], str]] = [
        (["promote"], "MODEL@VERSION"),
        (["promote", "cats"], "MODEL@VERSION"),
        (["promote", "cats@v1", "--wait", "soon"], "length of time"),
        (["push", "--check", "maybe"], "maybe"),
    ]
    for args, says in cases:
        assert main(args) == 2
        assert re.search(says, published.capsys.readouterr().err)
