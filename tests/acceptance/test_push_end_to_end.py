"""A push with a real uv: from a folder to a version that another box can install and import."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from modelrepo import CheckRequest, EnvironmentCache, IndexSettings, PushOptions, Repository, VersionCache, layout
from modelrepo.errors import EntrypointFailed, LockOutOfDate, ModelNotFound
from modelrepo.versions.manifest import Manifest
from tests.acceptance.packages import make_wheel

SPEC = "contract: 1\nname: hello\nentrypoint: model:Hello\ncheckpoints: {words: words.txt}\n"
MODEL = "import greeting\nclass Hello:\n    def run(self, job):\n        return greeting.VERSION\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC)
    (folder / "model.py").write_text(MODEL)
    (folder / "words.txt").write_text("good morning")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "hello"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["greeting==1.0"]\n'
    )
    return folder


@pytest.fixture
def options(tmp_path: Path) -> PushOptions:
    make_wheel(tmp_path / "links", "greeting")
    index = IndexSettings(find_links=(str(tmp_path / "links"),), no_index=True)
    return PushOptions(lock=True, index=index, cache=tmp_path / "pusher", message="first", author="me")


def imports(request: CheckRequest) -> None:
    module = request.spec.entrypoint.module
    done = subprocess.run(
        [request.python, "-I", "-B", "-c", f"import sys; sys.path.insert(0, '.'); import {module}"],
        cwd=request.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EntrypointFailed(f"cannot import {module}", log=done.stderr)


def test_what_was_pushed_here_runs_on_another_box(folder: Path, options: PushOptions, tmp_path: Path) -> None:
    repository = Repository.init(str(tmp_path / "repository"))
    pushed = repository.push(folder, options, check=imports)
    assert (pushed.version, pushed.reused_bytes, pushed.unchanged, pushed.notes) == ("v1", 0, False, ())
    repository.promotions.promote("hello", "v1")

    elsewhere = Repository.open(str(tmp_path / "repository"))
    version = elsewhere.resolve("hello")
    assert version.digest == pushed.digest
    assert version.manifest.message == "first"
    cache = tmp_path / "worker"
    local = VersionCache(cache, elsewhere.store).fetch(version)
    venv = EnvironmentCache(cache, index=IndexSettings(no_index=True)).ensure(
        version.manifest.environment, extra=None, wheels=elsewhere.wheels(version)
    )
    program = "import sys; sys.path.insert(0, sys.argv[1]); import model; print(model.Hello().run(None))"
    done = subprocess.run(
        [venv / "bin" / "python", "-I", "-B", "-c", program, local.code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.0\n"
    assert local.checkpoints["words"].read_text() == "good morning"


def test_a_push_of_what_is_there_already_publishes_nothing_when_asked(
    folder: Path, options: PushOptions, tmp_path: Path
) -> None:
    repository = Repository.init(str(tmp_path / "repository"))
    first = repository.push(folder, options)
    same = PushOptions(if_changed=True, index=options.index, cache=options.cache, locked=True)
    again = repository.push(folder, same)
    assert (again.unchanged, again.version, again.digest) == (True, "v1", first.digest)
    (folder / "words.txt").write_text("good evening")
    changed = repository.push(folder, same)
    assert (changed.unchanged, changed.version, changed.new_bytes) == (False, "v2", len("good evening"))


def test_what_cannot_be_imported_is_not_published(folder: Path, options: PushOptions, tmp_path: Path) -> None:
    repository = Repository.init(str(tmp_path / "repository"))
    (folder / ".modelrepoignore").write_text("secret_sauce.py\n")
    (folder / "secret_sauce.py").write_text("")
    (folder / "model.py").write_text("import secret_sauce\n" + MODEL)
    with pytest.raises(EntrypointFailed) as caught:
        repository.push(folder, options, check=imports)
    assert "secret_sauce" in caught.value.log
    with pytest.raises(ModelNotFound):
        repository.versions("hello")
    assert list(repository.store.list(layout.OBJECTS)) == []


def test_a_missing_lock_ends_a_locked_push_before_anything_is_written(
    folder: Path, options: PushOptions, tmp_path: Path
) -> None:
    repository = Repository.init(str(tmp_path / "repository"))
    before = [stat.key for stat in repository.store.list("")]
    with pytest.raises(LockOutOfDate, match="uv lock"):
        repository.push(folder, PushOptions(locked=True, index=options.index, cache=options.cache))
    assert [stat.key for stat in repository.store.list("")] == before


def test_the_manifest_names_no_folder_and_no_index_of_this_box(
    folder: Path, options: PushOptions, tmp_path: Path
) -> None:
    repository = Repository.init(str(tmp_path / "repository"))
    repository.push(folder, options)
    data = repository.store.read(layout.manifest("hello", "v1"))
    assert str(tmp_path) not in data.decode()
    manifest = Manifest.from_bytes(data)
    (wheel,) = manifest.environment.carried
    (bundle,) = repository.store.list(layout.ENVIRONMENTS)
    listed = json.loads(repository.store.read(bundle.key))["wheels"]
    assert [(one["path"], one["sha256"]) for one in listed] == [(wheel.filename, wheel.sha256)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3").create_bucket(Bucket="pushes")
        yield "s3://pushes/repository"
    finally:
        server.stop()


def test_a_bucket_keeps_and_gives_back_what_was_pushed(
    folder: Path, options: PushOptions, tmp_path: Path, bucket: str
) -> None:
    repository = Repository.init(bucket)
    (folder / "words.txt").write_bytes(bytes(range(256)) * 4096)
    first = repository.push(folder, options)
    (folder / "words.txt").write_text("good evening")
    second = repository.push(folder, options)
    assert (second.version, second.new_bytes) == ("v2", len("good evening"))
    repository.promotions.promote("hello", "v1")

    elsewhere = Repository.open(bucket)
    version = elsewhere.resolve("hello")
    assert version.digest == first.digest
    local = VersionCache(tmp_path / "worker", elsewhere.store).fetch(version)
    assert local.checkpoints["words"].read_bytes() == bytes(range(256)) * 4096
    assert elsewhere.pull("hello@v2", tmp_path / "copy").joinpath("words.txt").read_text() == "good evening"
    cache = EnvironmentCache(tmp_path / "worker", index=IndexSettings(no_index=True))
    venv = cache.ensure(version.manifest.environment, extra=None, wheels=elsewhere.wheels(version))
    assert list(venv.glob("lib/python3*/site-packages/greeting.py"))
