"""A pool on a tmpfs of a few MB, and one in a control group. Needs root, for the mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.errors import NoSpace
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.small_versions import small_version
from modelrepo.versions.version import LocalVersion
from modelrepo_runtime.pool.checkpoints import CheckpointPool, content_of
from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.stock import Headroom

pytestmark = pytest.mark.system

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def local(tmp_path: Path) -> LocalVersion:
    store = MemoryStore("small", MemoryBucket())
    files = {"a.safetensors": b"a" * (3 * MIB), "b.safetensors": b"b" * (3 * MIB), "config.json": b"{}"}
    version = small_version(store, "v1", checkpoints={"w": files}, chunk_bytes=MIB)
    return VersionCache(tmp_path / "cache", store).fetch(version)


def test_what_does_not_fit_a_small_tmpfs_is_read_from_the_disk_with_sizes(small: Path, local: LocalVersion) -> None:
    pooled = CheckpointPool(HostPool(small / "pool", 64 * MIB, margin_bytes=0)).bring(local)
    assert len(pooled.files) == 1
    assert pooled.problem is not None
    assert "1 of 2 checkpoint files are read from the disk: no room for 3.0 MiB" in pooled.problem
    assert "(a tmpfs of 4.0 MiB)" in pooled.problem


def test_the_margin_leaves_a_small_tmpfs_to_others(small: Path, local: LocalVersion) -> None:
    pooled = CheckpointPool.open(str(small / "pool")).bring(local)
    assert not pooled.files
    assert pooled.problem is not None
    assert "512.0 MiB stay free" in pooled.problem or "it may hold 2.0 MiB" in pooled.problem


def test_a_tmpfs_that_others_fill_meanwhile_is_a_clear_end(small: Path, local: LocalVersion) -> None:
    pool = HostPool(small / "pool", 64 * MIB, margin_bytes=0, headroom=lambda: Headroom({"by mistake": 1 << 40}))
    (small / "others").write_bytes(bytes(2 * MIB))
    record = local.version.manifest.checkpoints["w"].files[0]
    with pytest.raises(NoSpace, match="its tmpfs is full; somebody else filled it"):
        pool.bring(content_of(record), local.folder / "checkpoints" / "w" / record.path)
    assert pool.report().used_bytes == 0
