"""Disks without a byte or an inode left: a small tmpfs each. Needs root, for the mount."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from modelrepo.box_cache.checking import verify_box
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.environments import EnvironmentCache, EnvironmentRecord
from modelrepo.errors import NoSpace
from modelrepo.fetching.disk import Disk
from modelrepo.fetching.pull import pull_version
from modelrepo.stores.faults import FaultyStore, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.small_versions import assert_right, small_version
from modelrepo.versions.version import LocalVersion, Version

pytestmark = pytest.mark.system

MIB = 1 << 20
Mount = Callable[[str], Path]


class Optimist(Disk):
    """Says that there is room: stands for somebody who fills the disk after it was looked at."""

    def free(self, folder: Path) -> tuple[int, int]:
        return 1 << 50, 1 << 50


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a tmpfs with these options, or give the one that is there others."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        options = f"remount,{options}" if folder.is_mount() else options
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
        return folder

    yield mounted
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may hold files there


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("full", MemoryBucket())


def large(store: MemoryStore, name: str = "v1", mib: int = 6) -> Version:
    data = b"".join(f"{name} {number}".encode().ljust(MIB, b".") for number in range(mib))
    return small_version(store, name, checkpoints={"w": {"w.bin": data}}, chunk_bytes=MIB)


def many(store: MemoryStore, name: str = "v1", count: int = 60) -> Version:
    files: Mapping[str, bytes] = {f"{number}.txt": f"{name} {number}".encode() for number in range(count)}
    return small_version(store, name, checkpoints={"w": files})


def let_go(local: LocalVersion) -> LocalVersion:
    local.let_go()
    return local


FULL = pytest.mark.parametrize(
    ("make", "options", "more", "told"),
    [
        (large, "size=4m", "size=200m", r"6\.0 MiB"),
        (many, "size=200m,nr_inodes=50", "size=200m,nr_inodes=500", "inodes are free|became full"),
    ],
    ids=["bytes", "inodes"],
)
MakeVersion = Callable[[MemoryStore], Version]


@FULL
def test_a_fetch_that_would_not_fit_reads_nothing(
    store: MemoryStore, mount: Mount, make: MakeVersion, options: str, more: str, told: str
) -> None:
    version, watched, cache = make(store), faulty(store), mount(options) / "cache"
    with pytest.raises(NoSpace, match=told):
        VersionCache(cache, watched).fetch(version)
    assert watched.operations == []
    assert not list(cache.rglob("READY"))
    mount(more)
    assert_right(VersionCache(cache, store).fetch(version))


@FULL
def test_a_fetch_on_a_disk_that_becomes_full_leaves_nothing_half_and_goes_on_later(
    store: MemoryStore, mount: Mount, make: MakeVersion, options: str, more: str, told: str
) -> None:
    version, cache = make(store), mount(options) / "cache"
    with pytest.raises(NoSpace, match=r"became full; .* were to be written"):
        VersionCache(cache, store, disk=Optimist()).fetch(version)
    assert VersionCache(cache, store).ready(version) is None
    mount(more)
    watched = faulty(store)
    assert_right(VersionCache(cache, watched).fetch(version))
    assert len(watched.operations) < len(version.manifest.objects())
    assert verify_box(cache) == []


@pytest.mark.parametrize(
    ("make", "options"), [(large, "size=86m"), (many, "size=200m,nr_inodes=700")], ids=["bytes", "inodes"]
)
def test_a_full_disk_makes_the_cache_evict_what_nobody_uses(
    store: MemoryStore, mount: Mount, make: Callable[[MemoryStore, str], Version], options: str
) -> None:
    cache = VersionCache(mount(options) / "cache", store)
    used, idle = cache.fetch(make(store, "used")), let_go(cache.fetch(make(store, "idle")))
    for number in range(5):
        assert_right(let_go(cache.fetch(make(store, f"next {number}"))))
        assert_right(used)
    assert cache.ready(idle.version) is None
    served = [used]
    with pytest.raises(NoSpace, match=r"small@used .* is used by pid"):
        served.extend(cache.fetch(make(store, f"held {number}")) for number in range(5))
    for local in served:
        assert_right(local)


@FULL
def test_a_pull_leaves_nothing_behind(
    store: MemoryStore, mount: Mount, make: MakeVersion, options: str, more: str, told: str
) -> None:
    version, watched, disk = make(store), faulty(store), mount(options)
    with pytest.raises(NoSpace, match=told):
        pull_version(watched, version, disk / "model")
    assert watched.operations == []
    with pytest.raises(NoSpace, match="became full"):
        pull_version(store, version, disk / "model", disk=Optimist())
    assert list(disk.iterdir()) == []
    mount(more)
    pulled = pull_version(store, version, disk / "model")
    assert (pulled / "model.py").exists()


@pytest.mark.parametrize("options", ["size=16k", "size=4m,nr_inodes=12"], ids=["bytes", "inodes"])
def test_an_object_that_a_local_repository_has_no_room_for_is_not_there_at_all(mount: Mount, options: str) -> None:
    disk = mount(options)
    store = FaultyStore(FilesystemStore(disk / "repository"))
    made = []
    with pytest.raises(NoSpace, match=r"objects/\d+"):
        for number in range(20):
            store.create(f"objects/{number}", bytes([number]) * 3000)
            made.append(number)
    assert made
    assert [stat.key for stat in store.list("objects/")] == sorted(f"objects/{number}" for number in made)
    assert not [path for path in disk.rglob(".*") if path.is_file()]
    mount("size=4m,nr_inodes=100")
    store.create(f"objects/{len(made)}", bytes([len(made)]) * 3000)


@pytest.mark.parametrize("options", ["size=12k", "size=4m,nr_inodes=10"], ids=["bytes", "inodes"])
def test_an_environment_without_room_is_no_environment(mount: Mount, options: str) -> None:
    record = EnvironmentRecord(
        python=">=3.11", requires_python=">=3.11", digest="e" * 64, pyproject_sha256="f" * 64, requirements={"_": ()}
    )
    cache = EnvironmentCache(mount(options) / "cache")
    with pytest.raises(NoSpace, match="no space for environment eeeeeeeeeeee"):
        cache.ensure(record, extra=None)
    assert not list(cache.folder.rglob("READY"))
    mount("size=100m,nr_inodes=5000")
    assert (cache.ensure(record, extra=None) / "READY").exists()
