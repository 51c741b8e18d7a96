from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.opening import default_files_url, default_queue_url, open_queue, queue_path


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MODELREPO_QUEUE", "MODELREPO_FILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_three_or_four_slashes_mean_the_same_file() -> None:
    for url in ("sqlite:///a/q.db", "sqlite:////a/q.db", "/a/q.db"):
        assert queue_path(url) == Path("/a/q.db")
    assert queue_path("sqlite:///~/q.db") == Path.home() / "q.db"
    assert queue_path("sqlite:///a%20b/q.db") == Path("/a b/q.db")


@pytest.mark.parametrize("url", ["sqlite://", "", "postgres://x/y", "ftp://x"])
def test_a_url_that_names_no_queue_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="cannot open queue"):
        open_queue(url)


def test_a_queue_opens_under_its_own_url(tmp_path: Path) -> None:
    queue = open_queue(str(tmp_path / "deep" / "q.db"))
    again = open_queue(queue.url)
    assert queue.url == again.url == f"sqlite://{tmp_path}/deep/q.db"
    queue.close()
    again.close()


def test_a_queue_in_memory_is_shared_by_name() -> None:
    assert open_queue("memory://one") is open_queue("memory://one")
    assert open_queue("memory://one") is not open_queue("memory://two")


def test_the_flag_outranks_the_environment_and_that_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_queue_url(start=tmp_path).endswith("state/modelrepo/queue.db") or sys.platform == "darwin"
    (tmp_path / "modelrepo.toml").write_text('queue = "queues/q.db"\nfiles = "kept"\n')
    assert default_queue_url(start=tmp_path) == str(tmp_path / "queues" / "q.db")
    monkeypatch.setenv("MODELREPO_QUEUE", "sqlite:///env.db")
    assert default_queue_url(start=tmp_path) == "sqlite:///env.db"
    assert default_queue_url("memory://flag", start=tmp_path) == "memory://flag"


def test_files_lie_beside_the_queue_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_files_url(f"sqlite://{tmp_path}/q.db", start=tmp_path) == (tmp_path / "files").as_uri()
    assert default_files_url("memory://x", start=tmp_path) == "memory://x"
    (tmp_path / "modelrepo.toml").write_text('files = "s3://bucket/files"\n')
    assert default_files_url(f"sqlite://{tmp_path}/q.db", start=tmp_path) == "s3://bucket/files"
    monkeypatch.setenv("MODELREPO_FILES", "/env")
    assert default_files_url("memory://x", start=tmp_path) == "/env"
    assert default_files_url("memory://x", "/flag", start=tmp_path) == "/flag"
