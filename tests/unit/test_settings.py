"""The repository that a command means: flag, environment, nearest modelrepo.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput
from modelrepo.settings import Settings, find_settings, object_mirrors, repository_url


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_settings(inner) == Settings()
    (tmp_path / "modelrepo.toml").write_text('repo = "s3://bucket/models"\nqueue = "sqlite:///q.db"\nfiles = "files"\n')
    assert find_settings(inner) == Settings(
        "s3://bucket/models", "sqlite:///q.db", str(tmp_path / "files"), tmp_path / "modelrepo.toml"
    )
    (inner / "modelrepo.toml").write_text('repo = "../repository"\n')
    found = find_settings(inner)
    assert (found.repo, found.queue) == (str(inner / "../repository"), None)


def test_the_order_of_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELREPO_REPO", raising=False)
    with pytest.raises(InvalidInput, match=r"--repo.*MODELREPO_REPO.*modelrepo\.toml"):
        repository_url(start=tmp_path)
    (tmp_path / "modelrepo.toml").write_text('repo = "/from/file"\n')
    assert repository_url(start=tmp_path) == "/from/file"
    monkeypatch.setenv("MODELREPO_REPO", "/from/environment")
    assert repository_url(start=tmp_path) == "/from/environment"
    assert repository_url("/from/flag", start=tmp_path) == "/from/flag"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rebo = "x"', "unknown key 'rebo'; did you mean 'repo'"),
        ('zzz = "x"', "the keys are repo, queue, files"),
        ("repo = 1", "repo is 1"),
        ('repo = ""', "repo is ''"),
        ("repo = [", "not TOML"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "modelrepo.toml").write_text(text)
    with pytest.raises(InvalidInput, match=r"modelrepo\.toml") as caught:
        find_settings(tmp_path)
    assert says in str(caught.value)


def test_mirrors_are_those_of_the_flags_or_else_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELREPO_OBJECT_MIRROR", raising=False)
    assert object_mirrors() == ()
    monkeypatch.setenv("MODELREPO_OBJECT_MIRROR", "/near, s3://nearer/x,")
    assert object_mirrors() == ("/near", "s3://nearer/x")
    assert object_mirrors(("/nearest",)) == ("/nearest",)
