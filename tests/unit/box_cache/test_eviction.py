from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.box_cache.cache_folder import CacheFolder, content_key
from modelrepo.box_cache.single_flight import ContentLocks
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.environments import EnvironmentCache
from modelrepo.errors import Corrupt, InvalidInput, NoSpace, Stopped
from modelrepo.fetching import fetcher as fetching
from modelrepo.fetching.disk import SPARE_BYTES, Disk
from modelrepo.holds import take
from modelrepo.stores.faults import FaultyStore, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.small_versions import assert_right, small_version
from modelrepo.versions.version import LocalVersion, Version

KIB = 1024
MAKER = """
import sys
from pathlib import Path
from modelrepo.box_cache.single_flight import ContentLocks
with ContentLocks(Path(sys.argv[1])) as locks:
    print(locks.try_take(sys.argv[2]), flush=True)
    sys.stdin.read()
"""


class SmallDisk(Disk):
    """A disk of so many bytes, of which a folder takes what it takes; `others` is what somebody else fills."""

    def __init__(self, folder: Path, size_bytes: int, files: int = 1 << 30) -> None:
        self.folder, self.size_bytes, self.files, self.others = folder, size_bytes, files, 0

    def free(self, folder: Path) -> tuple[int, int]:
        return SPARE_BYTES + self.size_bytes - self.others - used(self.folder), self.files - count(self.folder)


def used(folder: Path) -> int:
    inodes = {found.st_ino: found.st_blocks * 512 for path in folder.rglob("*") if (found := path.lstat())}
    return sum(inodes.values())


def count(folder: Path) -> int:
    return len({path.lstat().st_ino for path in folder.rglob("*")})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("eviction", MemoryBucket())


@pytest.fixture
def make(store: MemoryStore) -> Callable[..., Version]:
    """Make a version with a checkpoint of its own and, for a `shared` text, one that others may have too."""

    def version(name: str, size_bytes: int = 200 * KIB, shared: str = "", environment: str = "e" * 64) -> Version:
        checkpoints = {"own": {"w.bin": hashlib.shake_128(name.encode()).digest(size_bytes)}}
        if shared:
            checkpoints["shared"] = {"s.bin": shared.encode() * 100}
        return small_version(store, name, checkpoints=checkpoints, environment=environment, chunk_bytes=64 * KIB)

    return version


def let_go(local: LocalVersion) -> LocalVersion:
    local.let_go()
    return local


def test_the_version_that_was_used_longest_ago_makes_room_for_the_next(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache = VersionCache(tmp_path, store, limit_bytes=600 * KIB)
    one, two, three = make("v1", shared="s"), make("v2", shared="s"), make("v3", shared="t")
    let_go(cache.fetch(one))
    let_go(cache.fetch(two))
    os.utime(tmp_path / "holds" / two.digest, (1.0, 1.0))
    os.utime(tmp_path / "versions" / two.digest / "READY", (1.0, 1.0))
    assert_right(cache.fetch(three))
    assert cache.ready(two) is None
    assert cache.ready(one) == frozenset({"own", "shared"})
    assert used(tmp_path) <= 600 * KIB
    kept = {path.name for path in (tmp_path / "objects").glob("*/*")}
    assert kept == {
        content_key(file) for v in (one, three) for c in v.manifest.checkpoints.values() for file in c.files
    }
    assert not list((tmp_path / "incoming").glob("*-*"))
    assert_right(cache.fetch(one))


def test_what_is_held_stays_and_the_error_says_who_holds_it(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    watched = faulty(store)
    cache = VersionCache(tmp_path, watched, limit_bytes=700 * KIB)
    served, idle = cache.fetch(make("served")), let_go(cache.fetch(make("idle")))
    before = len(watched.operations)
    with pytest.raises(NoSpace, match=rf"needs 600\.0 KiB .*may hold 700\.0 KiB .*small@served .* pid {os.getpid()}"):
        cache.fetch(make("large", 600 * KIB - 22))
    assert len(watched.operations) == before
    assert cache.ready(idle.version) is not None  # its room alone would not have done
    assert_right(served)
    let_go(served)
    assert_right(cache.fetch(make("large", 600 * KIB - 22)))


def test_a_full_disk_is_reason_enough_without_a_limit(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    disk = SmallDisk(tmp_path, 600 * KIB)
    cache = VersionCache(tmp_path, store, disk=disk)
    one, two = let_go(cache.fetch(make("v1"))), cache.fetch(make("v2"))
    three = let_go(cache.fetch(make("v3")))
    assert_right(three)
    assert cache.ready(one.version) is None
    assert_right(two)
    disk.files = count(tmp_path) + 8
    assert_right(cache.fetch(make("v4", 1)))
    assert cache.ready(three.version) is None
    assert_right(two)


def test_a_disk_that_others_fill_meanwhile_costs_what_is_unused_and_no_more(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    class Filling(SmallDisk):
        def write(self, fd: int, data: bytes | memoryview, start: int) -> None:
            if len(data) == 64 * KIB and start == 128 * KIB:
                self.others, self.fills = self.others + self.fills, 0
            if used(self.folder) + self.others + len(data) > self.size_bytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(fd, data, start)

        fills = 0

    disk = Filling(tmp_path, 1100 * KIB)
    cache = VersionCache(tmp_path, store, disk=disk)
    idle = let_go(cache.fetch(make("v1")))
    disk.fills = 750 * KIB
    local = cache.fetch(make("v2"))
    assert_right(local)
    assert cache.ready(idle.version) is None
    with pytest.raises(NoSpace, match=r"needs 400\.\d KiB .* is used by pid"):
        cache.fetch(make("v3", 400 * KIB))
    assert_right(local)


def test_two_fetches_never_count_on_the_same_room(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def wait(verb: str, key: str) -> None:
        began.set()
        assert goes_on.wait(60)

    slow = FaultyStore(store, before=wait)
    one, two = make("v1"), make("v2")
    disk = SmallDisk(tmp_path, 400 * KIB)
    done: list[LocalVersion] = []
    thread = threading.Thread(target=lambda: done.append(VersionCache(tmp_path, slow, disk=disk).fetch(one)))
    thread.start()
    assert began.wait(60)
    for cache in (VersionCache(tmp_path, store, disk=disk), VersionCache(tmp_path, store, limit_bytes=400 * KIB)):
        with pytest.raises(NoSpace, match="small@v2"):
            cache.fetch(two)
    goes_on.set()
    thread.join()
    assert_right(done[0])


def test_two_versions_that_share_a_file_fetch_it_once(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    watched = faulty(store)
    versions = [make(f"v{number}", shared="same") for number in range(4)]
    start = threading.Barrier(len(versions))

    def fetch(version: Version) -> None:
        start.wait()
        assert_right(VersionCache(tmp_path, watched).fetch(version))

    threads = [threading.Thread(target=fetch, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reads = [key for verb, key in watched.operations if verb.startswith("read")]
    wanted = {layout.object_(digest) for version in versions for digest in version.manifest.objects()}
    assert set(reads) == wanted
    assert len(reads) == len(wanted)


def test_a_file_that_another_process_fetches_is_waited_for_and_taken_over_when_it_dies(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    version, cache = make("v1"), VersionCache(tmp_path, store)
    (tmp_path / "locks").mkdir()
    key = content_key(version.manifest.checkpoints["own"].files[0])
    arguments = [sys.executable, "-c", MAKER, str(tmp_path / "locks" / "contents"), key]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > 30

        with pytest.raises(Stopped, match="another process fetched a checkpoint of small@v1"):
            cache.fetch(version, stop=stop)
        holder.kill()
        holder.wait()
        assert_right(cache.fetch(version))


def test_a_lock_on_a_content_belongs_to_one_fetch(tmp_path: Path) -> None:
    path, one, other = tmp_path / "contents", "a" * 64, "b" * 64
    with ContentLocks(path) as mine, ContentLocks(path) as theirs:
        assert mine.try_take(one)
        assert mine.try_take(one)
        assert not theirs.try_take(one)
        assert theirs.try_take(other)
        mine.release(one)
        assert theirs.try_take(one)
        theirs.release_all()
        assert mine.try_take(one)
        assert mine.try_take(other)
    with ContentLocks(path) as later:
        assert later.try_take(one)


def test_a_fetch_that_died_reads_nothing_twice(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "THREADS", 1)
    version = make("v1", shared="s")
    objects = len(version.manifest.objects())
    for last in range(1, objects):
        folder, reads = tmp_path / str(last), 0

        def die(verb: str, key: str, last: int = last) -> None:
            nonlocal reads
            reads += 1
            if reads > last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            VersionCache(folder, FaultyStore(store, before=die)).fetch(version)
        watched = faulty(store)
        assert_right(VersionCache(folder, watched).fetch(version))
        assert len(watched.operations) == objects - last


def test_leftovers_of_dead_fetches_go_after_a_day_and_those_of_live_ones_never(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    version, cache, folder = make("v1"), VersionCache(tmp_path, store), CacheFolder(tmp_path)
    with pytest.raises(Stopped):
        asked = iter([False] * 5)
        cache.fetch(version, stop=lambda: next(asked, True))
    part = folder.partial("a" * 64)
    part.write_bytes(b"half")
    grave = folder.arriving / "evicted-1234"
    (grave / "code").mkdir(parents=True)
    cache.tidy()
    assert not grave.exists()
    assert part.exists()
    assert folder.incoming(version.digest).exists()
    for path in (part, folder.incoming(version.digest)):
        os.utime(path, (1.0, 1.0))
    live, _ = cache.hold(version)
    cache.tidy()
    assert not part.exists()
    assert folder.incoming(version.digest).exists()
    live.release()
    cache.tidy()
    assert not folder.incoming(version.digest).exists()


def test_a_limit_that_became_smaller_is_kept_as_far_as_nobody_is_hurt(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache = VersionCache(tmp_path, store)
    served, idle = cache.fetch(make("v1")), let_go(cache.fetch(make("v2")))
    VersionCache(tmp_path, store, limit_bytes=1).tidy()
    assert cache.ready(idle.version) is None
    locks = {path.name for folder in ("holds", "locks") for path in (tmp_path / folder).iterdir()}
    assert not [name for name in locks if name.startswith(idle.version.digest)]
    assert_right(served)


def test_environments_go_after_the_versions_that_run_in_them(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    def environment(digest: str) -> Path:
        venv = tmp_path / "environments" / digest / "_" / "cp311-linux"
        venv.mkdir(parents=True)
        (venv / "lib.so").write_bytes(bytes(300 * KIB))
        (venv / "READY").write_text(json.dumps({}))
        (venv.parent / ".building-1").mkdir()  # of a build that was killed: it keeps nothing
        return venv

    cache = VersionCache(tmp_path, store, limit_bytes=1000 * KIB)
    served = cache.fetch(make("v1", 100 * KIB, environment="a" * 64))
    let_go(cache.fetch(make("v2", 100 * KIB, environment="b" * 64)))
    of_served, of_idle = environment("a" * 64), environment("b" * 64)
    held = EnvironmentCache(tmp_path).hold("b" * 64)
    with pytest.raises(NoSpace):
        cache.fetch(make("v3", 300 * KIB))
    held.release()
    assert_right(cache.fetch(make("v3", 300 * KIB)))
    assert not of_idle.exists()
    assert (of_served / "READY").exists()
    assert_right(served)


def test_what_only_a_next_build_wants_goes_last_and_never_under_a_uv_at_work(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache = VersionCache(tmp_path, store, limit_bytes=700 * KIB)
    served, idle = cache.fetch(make("v1", 100 * KIB)), let_go(cache.fetch(make("v2", 100 * KIB)))
    wheel = tmp_path / "uv" / "archive-v0" / "torch" / "lib.so"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(bytes(300 * KIB))
    lock = tmp_path / "uv" / ".lock"
    at_work = take(lock, shared=True)
    with pytest.raises(NoSpace):
        cache.fetch(make("v3", 400 * KIB))
    at_work.release()
    building = take(tmp_path / "holds" / "supplies", shared=True)
    with pytest.raises(NoSpace):
        cache.fetch(make("v3", 400 * KIB))
    assert cache.ready(idle.version) is not None
    building.release()
    assert_right(cache.fetch(make("v3", 400 * KIB)))
    assert not wheel.exists()
    assert lock.exists()
    assert_right(served)


def test_room_can_be_made_for_what_no_fetch_brings(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache = VersionCache(tmp_path, store, disk=SmallDisk(tmp_path, 600 * KIB))
    idle = let_go(cache.fetch(make("v1")))
    cache.make_room(100 * KIB, what="an environment")
    assert cache.ready(idle.version) is not None
    cache.make_room(400 * KIB, what="an environment")
    assert cache.ready(idle.version) is None
    with pytest.raises(NoSpace, match="an environment"):
        cache.make_room(700 * KIB, what="an environment")


def test_damage_on_the_way_leaves_no_lock_and_no_promise(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    version = make("v1")
    digest = version.manifest.checkpoints["own"].files[0].chunks[0].sha256
    store.delete(layout.object_(digest))
    cache = VersionCache(tmp_path, store, disk=SmallDisk(tmp_path, 600 * KIB))
    with pytest.raises(Corrupt, match=digest):
        cache.fetch(version)
    assert_right(cache.fetch(make("v2", 400 * KIB)))
    make("v1")
    cache.make_room(0, what="nothing")


def test_a_cache_that_nobody_may_write_to_is_read_all_the_same(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    cache = VersionCache(tmp_path, store)
    there, absent = let_go(cache.fetch(make("v1"))), make("v2")
    monkeypatch.setattr("modelrepo.box_cache.version_cache.take", refuse)
    assert_right(cache.fetch(there.version))
    with pytest.raises(OSError, match="Read-only"):
        cache.fetch(absent)


@pytest.mark.parametrize(("text", "size"), [("500GB", 500 * 10**9), ("1.5 GiB", 3 << 29), ("", None)])
def test_the_size_comes_from_the_environment_where_nobody_says_it(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, size: int | None
) -> None:
    monkeypatch.setenv("MODELREPO_CACHE_SIZE", text)
    assert VersionCache(tmp_path, store).room.limit_bytes == size
    assert VersionCache(tmp_path, store, limit_bytes=7).room.limit_bytes == 7


def test_a_size_that_cannot_be_read_is_named(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREPO_CACHE_SIZE", "much")
    with pytest.raises(InvalidInput, match="MODELREPO_CACHE_SIZE: 'much' is no size"):
        VersionCache(tmp_path, store)


def test_files_of_holds_on_what_is_not_here_go_once_nobody_has_them(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache = VersionCache(tmp_path, store)
    served, idle = cache.fetch(make("v1", environment="a" * 64)), let_go(cache.fetch(make("v2", environment="b" * 64)))
    (tmp_path / "environments" / ("c" * 64)).mkdir(parents=True)
    EnvironmentCache(tmp_path).hold("c" * 64).release()
    cache.tidy()
    here = {served.version.digest, idle.version.digest, f"environment-{'a' * 64}", f"environment-{'c' * 64}"}
    assert {path.name for path in (tmp_path / "holds").iterdir()} == here


def test_a_link_in_the_cache_is_evicted_and_what_it_leads_to_stays(
    store: MemoryStore, make: Callable[..., Version], tmp_path: Path
) -> None:
    cache, elsewhere = VersionCache(tmp_path / "cache", store, limit_bytes=900 * KIB), tmp_path / "elsewhere"
    (elsewhere / "mine").mkdir(parents=True)
    (elsewhere / "mine" / "large").write_bytes(bytes(2000 * KIB))
    served = cache.fetch(make("v1", 100 * KIB))
    for name in ("versions", "environments", "incoming"):
        (tmp_path / "cache" / name).mkdir(exist_ok=True)
        (tmp_path / "cache" / name / ("c" * 64)).symlink_to(elsewhere)
    assert_right(cache.fetch(make("v2", 100 * KIB)))  # there is room, whatever lies elsewhere
    VersionCache(tmp_path / "cache", store, limit_bytes=1).tidy()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_symlink()]
    assert (elsewhere / "mine" / "large").stat().st_size == 2000 * KIB
    assert_right(served)
