"""verify --local: what this box has built, held to the RECORDs, and taken out where it is broken and unused."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from modelrepo.box_cache.cache_folder import CacheFolder
from modelrepo.holds import take
from modelrepo.maintenance.box import verify_cache

DIGEST = "e" * 64


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment with one distribution, in a cache with uv's beside it."""
    venv = tmp_path / "environments" / DIGEST / "_" / "cp311-linux"
    site = venv / "lib" / "python3.11" / "site-packages"
    information = site / "greeting-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "greeting.py").write_text("hello = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"hello = 1\n").digest()).rstrip(b"=").decode()
    (information / "RECORD").write_text(f"greeting.py,sha256={digest},10\ngreeting-1.0.dist-info/RECORD,,\n")
    (venv / "READY").write_text("{}")
    (tmp_path / "uv").mkdir()
    return venv


def spoil(environment: Path) -> None:
    (environment / "lib" / "python3.11" / "site-packages" / "greeting.py").write_text("hello = 2\n")


def test_a_whole_box_is_whole(environment: Path, tmp_path: Path) -> None:
    report = verify_cache(tmp_path)
    assert report.whole
    assert report.environments == 1


def test_a_changed_file_is_named_and_nothing_is_removed_unasked(environment: Path, tmp_path: Path) -> None:
    spoil(environment)
    (broken,) = verify_cache(tmp_path).broken
    assert broken.path == environment
    assert [str(problem) for problem in broken.problems] == [
        "lib/python3.11/site-packages/greeting.py: changed (greeting 1.0)"
    ]
    assert environment.exists()


def test_a_broken_environment_is_removed_with_what_it_was_linked_from(environment: Path, tmp_path: Path) -> None:
    spoil(environment)
    report = verify_cache(tmp_path, remove=True)
    assert report.removed == [str(environment)]
    assert not report.kept
    assert not environment.exists()
    assert not (tmp_path / "uv").exists()
    assert verify_cache(tmp_path).whole


def test_one_in_use_stays_and_is_said_to(environment: Path, tmp_path: Path) -> None:
    spoil(environment)
    folder = CacheFolder(tmp_path)
    verify_cache(tmp_path)
    with take(folder.hold(f"environment-{DIGEST}"), shared=True):
        report = verify_cache(tmp_path, remove=True)
    assert not report.removed
    assert "is used by pid" in report.kept[0]
    assert environment.exists()
