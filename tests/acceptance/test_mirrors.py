"""Pull through object mirrors: near, incomplete, spoilt, and gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelrepo import Repository, layout
from modelrepo.stores.mirrored import open_mirrors
from modelrepo.stores.opening import open_store
from modelrepo_cli.main import main
from tests.conftest import Bucket
from tests.unit.copying.conftest import put_version

CHUNKS = (b"x" * (16 << 10), b"y" * (17 << 20), b"z")


@pytest.fixture
def home(tmp_path: Path) -> str:
    """A repository with one version, and nothing else to read its objects from."""
    url = str(tmp_path / "home")
    Repository.init(url)
    put_version(open_store(url), weights=CHUNKS)
    return url


@pytest.fixture
def pull(home: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Pull from `home`, see that what came is whole, and return what was said."""

    def run(*args: str) -> str:
        assert main(["pull", "tiny@v1", str(tmp_path / "pulled"), "--repo", home, *args]) == 0
        found = next((tmp_path / "pulled").rglob("w.bin")).read_bytes()
        assert found == b"".join(CHUNKS)
        return capsys.readouterr().err

    return run


def copy_to(home: str, target: str) -> None:
    store = open_store(target)
    store.create(layout.REPOSITORY, b'{"format": 1, "id": "mirror"}')
    identity = {"endpoint": store.identity.endpoint, "bucket": store.identity.bucket}
    store.create(layout.STORE, json.dumps({"format": 1, "creates_if_absent": True, **identity}).encode())
    assert not Repository.open(home).copy_to(Repository.open(target)).errors()


def spoil(folder: Path, how: Callable[[Path], Any]) -> None:
    for path in (folder / "objects").rglob("*"):
        if path.is_file():
            how(path)


def test_what_the_repository_has_lost_comes_from_a_mirror_in_a_bucket(
    home: str, seaweed: Bucket, pull: Callable[..., str]
) -> None:
    copy_to(home, f"{seaweed.url}/mirror")
    spoil(Path(home), Path.unlink)
    assert pull("--object-mirror", f"{seaweed.url}/mirror") == ""


@pytest.mark.parametrize("how", ["missing", "spoilt", "shorter"])
def test_what_a_mirror_lacks_or_spoils_comes_from_the_repository(
    home: str, tmp_path: Path, pull: Callable[..., str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    copy_to(home, str(mirror))
    acts: dict[str, Callable[[Path], Any]] = {
        "missing": Path.unlink,
        "spoilt": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    }
    spoil(mirror, acts[how])
    monkeypatch.setenv("MODELREPO_OBJECT_MIRROR", f"{tmp_path / 'nothing'},{mirror}")
    said = pull()
    assert said.count("has other bytes") == (0 if how == "missing" else len(CHUNKS) + 1)


def test_a_mirror_that_nobody_serves_is_said_once(
    pull: Callable[..., str], seaweed: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    said = pull("--object-mirror", f"{seaweed.url}/mirror")
    assert said.count("is left alone for a while") == 1
    assert said.count("\n") == 1


def test_a_mirror_is_never_written_to(home: str, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    repository = Repository.open(home, mirrors=open_mirrors([str(mirror)], lambda line: None))
    repository.promotions.promote("tiny", "v1")
    repository.pull("tiny", tmp_path / "pulled")
    assert not list(mirror.iterdir())
    assert repository.promotions.state("tiny").version == "v1"
