"""What `doctor` says of this box."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from modelrepo.diagnosis import Finding, Standing, diagnose_box


def look(cache: Path, environ: dict[str, str] | None = None) -> dict[str, Finding]:
    return {finding.about: finding for finding in diagnose_box(cache, environ or {"PATH": "", "HOME": "/nowhere"})}


def test_a_box_in_order_is_said_to_be(tmp_path: Path) -> None:
    found = look(tmp_path / "not" / "made")
    assert set(found) == {"cache", "uv", "interpreters", "versions"}
    assert {finding.standing for finding in found.values()} <= {Standing.OK, Standing.WARN}
    assert found["cache"].facts["path"] == str(tmp_path / "not" / "made")
    assert not (tmp_path / "not").exists()
    assert found["uv"].found.startswith("uv ")
    versions = [one["version"] for one in found["interpreters"].facts["interpreters"]]
    assert ".".join(map(str, sys.version_info[:3])) in versions
    assert {"modelrepo-toolkit", "obstore", "botocore"} <= found["versions"].facts["versions"].keys()


@pytest.mark.parametrize(
    ("blocks", "files", "standing"),
    [(10**9, 10**9, Standing.OK), (10**9, 10, Standing.WARN), (10, 10**9, Standing.WARN)],
)
def test_little_space_and_few_inodes_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, files: int, standing: Standing
) -> None:
    facts = namedtuple("facts", "f_bavail f_frsize f_favail f_files")
    answer: Any = facts(blocks, 4096, files, 10**9)
    monkeypatch.setattr(os, "statvfs", lambda _path: answer)
    assert look(tmp_path)["cache"].standing is standing


def test_a_cache_that_may_not_be_written_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    found = look(tmp_path)["cache"]
    assert found.standing is Standing.FAIL
    assert "MODELREPO_CACHE" in found.advice
