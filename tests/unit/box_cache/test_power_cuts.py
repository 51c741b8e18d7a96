"""A cache is killed, or loses its power, at every change of its disk: nothing half is ever taken for whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.box_cache.checking import verify_box
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.fetching.disk import Disk
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.fragile_disk import FragileDisk, PowerCut
from modelrepo.testing.small_versions import assert_right, small_version
from modelrepo.versions.version import Version


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("power", MemoryBucket())


@pytest.fixture
def versions(store: MemoryStore) -> list[Version]:
    shared = {"s.bin": b"shared", "empty.txt": b""}
    return [
        small_version(
            store,
            f"v{number}",
            code={"pkg/run.sh": b"#! %d" % number},
            checkpoints={"own": {"sub/a.bin": b"%d" % number * 30}, "both": shared},
            chunk_bytes=16,
        )
        for number in (1, 2)
    ]


def fetch_and_evict(folder: Path, store: MemoryStore, versions: list[Version], disk: Disk) -> None:
    """Fetch one version, and another one into a cache that has no room for both."""
    VersionCache(folder, store, disk=disk).fetch(versions[0]).let_go()
    VersionCache(folder, store, disk=disk, limit_bytes=1).tidy()
    VersionCache(folder, store, disk=disk).fetch(versions[1])


def check(folder: Path, store: MemoryStore, versions: list[Version], disk: Disk) -> None:
    assert verify_box(folder) == []
    cache = VersionCache(folder, store, disk=disk)
    for version in versions:
        if (ready := cache.ready(version)) is not None:
            assert_right(cache.fetch(version, checkpoints=ready))
    for version in versions:
        assert_right(cache.fetch(version))
    assert verify_box(folder) == []


@pytest.mark.parametrize("power", ["kept", "lost"])
def test_whatever_is_cut_at_any_change_the_cache_is_right_after_it(
    store: MemoryStore, versions: list[Version], tmp_path: Path, power: str
) -> None:
    counted = FragileDisk(tmp_path / "attic")
    fetch_and_evict(tmp_path / "counted", store, versions, counted)
    assert VersionCache(tmp_path / "counted", store).ready(versions[0]) is None
    assert counted.count > 60
    for at in range(1, counted.count + 1, 1 if power == "lost" else 3):
        folder, disk = tmp_path / f"cut-{at}", FragileDisk(tmp_path / "attic", at)
        with pytest.raises(PowerCut):
            fetch_and_evict(folder, store, versions, disk)
        if power == "lost":
            disk.lose_power()
        check(folder, store, versions, FragileDisk(tmp_path / "attic"))
