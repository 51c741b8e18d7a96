from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.address import sqlite_path, sqlite_url
from modelrepo_runtime.queue.opening import default_files_url, default_queue_url, open_queue


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MODELREPO_QUEUE", "MODELREPO_FILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a/q.db", "a/q.db"):
        assert sqlite_path(url) == tmp_path / "a" / "q.db"
        assert sqlite_path(url, Path("/beside")) == Path("/beside/a/q.db")
    for url in ("sqlite:////a/q.db", "sqlite://///a/q.db", "/a/q.db"):
        assert sqlite_path(url) == sqlite_path(url, Path("/beside")) == Path("/a/q.db")
    for url in ("sqlite:///~/q.db", "~/q.db"):
        assert sqlite_path(url) == sqlite_path(url, Path("/beside")) == Path.home() / "q.db"
    assert sqlite_path("sqlite:////a%20b/q.db") == Path("/a b/q.db")


@pytest.mark.parametrize("name", ["q.db", "a b/q.db", "50%25/q.db", "what?/q#1.db"])
def test_the_url_of_a_path_leads_back_to_it(tmp_path: Path, name: str) -> None:
    url = sqlite_url(tmp_path / name)
    assert url.startswith("sqlite:////")
    assert sqlite_path(url) == tmp_path / name


def test_two_slashes_are_told_from_three() -> None:
    with pytest.raises(InvalidInput, match=r"write sqlite:///q\.db for a path from the current folder"):
        sqlite_path("sqlite://q.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:////", "", "sqlite://q.db", "ftp://x"])
def test_a_url_that_names_no_queue_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="cannot open queue"):
        open_queue(url)


def test_a_queue_opens_under_its_own_url(tmp_path: Path) -> None:
    queue = open_queue(str(tmp_path / "deep" / "q.db"))
    again = open_queue(queue.url)
    assert queue.url == again.url == f"sqlite:///{tmp_path}/deep/q.db"
    queue.close()
    again.close()


def test_a_queue_in_memory_is_shared_by_name() -> None:
    assert open_queue("memory://one") is open_queue("memory://one")
    assert open_queue("memory://one") is not open_queue("memory://two")


def test_the_flag_outranks_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_queue_url(start=tmp_path).endswith("state/modelrepo/queue.db") or sys.platform == "darwin"
    (tmp_path / "modelrepo.toml").write_text('queue = "queues/q.db"\nfiles = "kept"\n')
    assert default_queue_url(start=tmp_path / "below") == f"sqlite:///{tmp_path}/queues/q.db"
    monkeypatch.setenv("MODELREPO_QUEUE", "sqlite:///env.db")
    assert default_queue_url(start=tmp_path) == "sqlite:///env.db"
    assert default_queue_url("memory://flag", start=tmp_path) == "memory://flag"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite:///q.db", "sqlite:///{here}/q.db"),
        ("sqlite:////var/q.db", "sqlite:////var/q.db"),
        ("sqlite:///~/q.db", "sqlite:///{home}/q.db"),
        ("~/q.db", "sqlite:///{home}/q.db"),
        ("memory://one", "memory://one"),
    ],
)
def test_a_relative_queue_in_the_file_lies_beside_it(tmp_path: Path, written: str, meant: str) -> None:
    (tmp_path / "modelrepo.toml").write_text(f'queue = "{written}"\n')
    assert default_queue_url(start=tmp_path) == meant.format(here=tmp_path, home=Path.home())


def test_the_users_own_queue_has_an_absolute_url(tmp_path: Path) -> None:
    assert default_queue_url(start=tmp_path).startswith("sqlite:////")


def test_files_lie_beside_the_queue_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_files_url(f"sqlite:///{tmp_path}/q.db", start=tmp_path) == (tmp_path / "files").as_uri()
    assert default_files_url("memory://x", start=tmp_path) == "memory://x"
    (tmp_path / "modelrepo.toml").write_text('files = "s3://bucket/files"\n')
    assert default_files_url(f"sqlite:///{tmp_path}/q.db", start=tmp_path) == "s3://bucket/files"
    monkeypatch.setenv("MODELREPO_FILES", "/env")
    assert default_files_url("memory://x", start=tmp_path) == "/env"
    assert default_files_url("memory://x", "/flag", start=tmp_path) == "/flag"
