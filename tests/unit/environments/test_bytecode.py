"""Bytecode is compiled once per box, and what is kept of it outlives a power cut whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from modelrepo.environments.bytecode import add_bytecode


def environment(folder: Path) -> Path:
    site = folder / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    (site / "tiny-1.dist-info").mkdir(parents=True)
    (site / "tiny-1.dist-info" / "RECORD").write_text("tiny.py,sha256=x,1\ntiny-1.dist-info/RECORD,,\n")
    (site / "tiny.py").write_text("X = 1\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder


@pytest.mark.parametrize("copy", [False, True])
def test_what_is_kept_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: bool
) -> None:
    store, synced = tmp_path / "store", list[list[str]]()

    def sync() -> None:
        synced.append(sorted(path.name for path in store.iterdir() if not path.name.startswith(".")))
        assert list(store.glob(".*/__pycache__/tiny.*.pyc"))

    monkeypatch.setattr(os, "sync", sync)
    assert add_bytecode(environment(tmp_path / "one"), store, environment={}, copy=copy) == 1
    assert synced == [[]]
    assert add_bytecode(environment(tmp_path / "two"), store, environment={}, copy=copy) == 0
    assert synced == [[]]
    assert len(list((tmp_path / "two").rglob("*.pyc"))) == 1
    assert not list(store.glob(".*"))
