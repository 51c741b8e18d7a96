from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelrepo import layout
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.errors import Corrupt, InvalidInput, NoSpace, Stopped
from modelrepo.fetching import fetcher as fetching
from modelrepo.fetching.disk import Disk
from modelrepo.publication.publish import Publication, Published, publish
from modelrepo.stores.faults import faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.versions import chunks
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.version import Version

MakeFolder = Callable[..., Path]
MakeVersion = Callable[..., Version]
SPEC = "checkpoints: {pipe: pipe, single: one.bin}\n"
FILES = {"run.sh": "#!", "pipe/a.bin": "a" * 50, "pipe/sub/b.bin": "b" * 33, "pipe/empty.txt": "", "one.bin": "c" * 21}


@pytest.fixture
def make_version(
    store: MemoryStore,
    make_folder: MakeFolder,
    make_draft: Callable[..., Publication],
    version_of: Callable[[Published], Version],
) -> MakeVersion:
    def make(at: str = "model", *, spec: str = SPEC, **changes: str) -> Version:
        folder = make_folder(at=at, spec=spec, files={**FILES, **changes})
        (folder / "run.sh").chmod(0o755)
        return version_of(publish(store, make_draft(folder)))

    return make


def check_whole(cache: VersionCache, version: Version) -> None:
    """Whatever the cache says is there, is there byte for byte; and so is every object."""
    names = cache.ready(version)
    if names is not None:
        local = cache.fetch(version, checkpoints=names)
        for record in version.manifest.code:
            assert (local.code / record.path).stat().st_size == record.size_bytes
        for name in names:
            base = local.folder / "checkpoints" / name
            for record in version.manifest.checkpoints[name].files:
                assert (base / record.path).read_bytes() == FILES[_origin(name, record)].encode()
    for path in (cache.cache / "objects").rglob("*"):
        if path.is_file():
            assert path.read_bytes() in {data.encode() for data in FILES.values()}
            assert path.stat().st_mode & 0o222 == 0


def _origin(name: str, record: FileRecord) -> str:
    return f"pipe/{record.path}" if name == "pipe" else "one.bin"


def test_a_fetched_version_is_whole_and_read_only(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    version = make_version()
    local = VersionCache(tmp_path / "cache", store).fetch(version)
    assert (local.checkpoints["pipe"] / "sub/b.bin").read_bytes() == b"b" * 33
    assert (local.checkpoints["pipe"] / "empty.txt").read_bytes() == b""
    assert local.checkpoints["single"].read_bytes() == b"c" * 21
    assert (local.code / "model.py").read_text() == "class Model: pass\n"
    assert (local.code / "run.sh").stat().st_mode & 0o777 == 0o555
    assert (local.code / "model.py").stat().st_mode & 0o777 == 0o444
    assert local.checkpoints["single"].stat().st_mode & 0o777 == 0o444
    assert local.folder == tmp_path / "cache" / "versions" / version.digest
    assert not (tmp_path / "cache" / "incoming" / version.digest).exists()
    check_whole(VersionCache(tmp_path / "cache", store), version)


def test_a_version_that_is_there_costs_no_look_at_the_repository(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    version = make_version()
    VersionCache(tmp_path, store).fetch(version)
    watched = faulty(store)
    VersionCache(tmp_path, watched).fetch(version)
    assert watched.operations == []


def test_versions_share_checkpoints_but_never_code(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    first, second = make_version(), make_version("other", **{"model.py": "class Model: ...\n"})
    watched = faulty(store)
    cache = VersionCache(tmp_path / "cache", watched)
    one, before = cache.fetch(first), len(watched.operations)
    two = cache.fetch(second)
    fetched = {key for verb, key in watched.operations[before:] if verb == "read"}
    assert fetched == {layout.object_(file.sha256) for file in second.manifest.code}
    assert one.checkpoints["single"].samefile(two.checkpoints["single"])
    assert not (one.code / "run.sh").samefile(two.code / "run.sh")
    assert (one.code / "run.sh").stat().st_nlink == 1


def test_only_the_wanted_checkpoints_are_fetched_and_others_can_follow(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    version, cache = make_version(), VersionCache(tmp_path / "cache", store)
    assert cache.ready(version) is None
    first = cache.fetch(version, checkpoints=["single"])
    assert first.checkpoints.keys() == {"single"}
    assert cache.ready(version) == frozenset({"single"})
    assert not (first.folder / "checkpoints" / "pipe").exists()
    assert cache.fetch(version).checkpoints.keys() == {"pipe", "single"}
    assert cache.fetch(version, checkpoints=[]).checkpoints == {}
    with pytest.raises(InvalidInput, match="did you mean 'pipe'"):
        cache.fetch(version, checkpoints=["pip"])


def test_files_of_many_chunks_and_chunks_of_many_pieces_arrive_whole(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "WHOLE_UP_TO_BYTES", 20)
    monkeypatch.setattr(chunks, "PIECE_BYTES", 16)
    monkeypatch.setattr(fetching, "WHOLE_READ_BYTES", 10)
    monkeypatch.setattr(fetching, "PIECE_BYTES", 3)
    version, cache = make_version(), VersionCache(tmp_path / "cache", store)
    assert [len(file.chunks) for file in version.manifest.checkpoints["pipe"].files] == [4, 0, 3]
    cache.fetch(version)
    check_whole(cache, version)


@pytest.mark.parametrize("damage", [b"", b"c" * 20, b"c" * 20 + b"x", None], ids=["empty", "short", "other", "missing"])
@pytest.mark.parametrize("whole_read_bytes", [1 << 20, 4])
def test_damaged_objects_are_named_and_never_used(
    store: MemoryStore,
    make_version: MakeVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: bytes | None,
    whole_read_bytes: int,
) -> None:
    monkeypatch.setattr(fetching, "WHOLE_READ_BYTES", whole_read_bytes)
    version, cache = make_version(), VersionCache(tmp_path / "cache", store)
    digest = version.manifest.checkpoints["single"].files[0].sha256
    store.delete(layout.object_(digest))
    if damage is not None:
        store.create(layout.object_(digest), damage)
    with pytest.raises(Corrupt, match=f"{digest} of one.bin") as caught:
        cache.fetch(version)
    assert (caught.value.path, caught.value.digest) == ("one.bin", digest)
    assert cache.ready(version) is None
    check_whole(cache, version)


def test_a_version_that_would_not_fit_is_refused_with_sizes_before_anything_is_read(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    class Small(Disk):
        def free(self, folder: Path) -> tuple[int, int]:
            return 65 << 20, 1000

    class NoInodes(Disk):
        def free(self, folder: Path) -> tuple[int, int]:
            return 1 << 40, 3

    version = make_version()
    large = replace(version.manifest.code[0], path="large.bin", size_bytes=2 << 20, chunks=())
    big = replace(version, manifest=replace(version.manifest, code=(large,)))
    watched = faulty(store)
    with pytest.raises(NoSpace, match=r"needs 2\.0 MiB .* 65\.0 MiB are free"):
        VersionCache(tmp_path / "a", watched, disk=Small()).fetch(big, checkpoints=[])
    with pytest.raises(NoSpace, match="inodes"):
        VersionCache(tmp_path / "b", watched, disk=NoInodes()).fetch(version)
    assert watched.operations == []


def test_a_disk_that_becomes_full_says_so_and_the_next_try_goes_on(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    class Filling(Disk):
        left = 100

        def write(self, fd: int, data: bytes | memoryview, start: int) -> None:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(fd, data, start)

    version = make_version()
    with pytest.raises(NoSpace, match="became full"):
        VersionCache(tmp_path / "cache", store, disk=Filling()).fetch(version)
    cache = VersionCache(tmp_path / "cache", store)
    assert cache.ready(version) is None
    cache.fetch(version)
    check_whole(cache, version)


def test_a_fetch_stops_when_it_is_asked_to(store: MemoryStore, make_version: MakeVersion, tmp_path: Path) -> None:
    version, cache = make_version(), VersionCache(tmp_path / "cache", store)
    with pytest.raises(Stopped):
        cache.fetch(version, stop=lambda: True)
    assert cache.ready(version) is None
    seen: list[int] = []
    cache.fetch(version, progress=lambda phase, done, total: seen.append(done), stop=lambda: False)
    assert seen == sorted(seen)
    assert seen[-1] == version.manifest.size_bytes


def test_two_that_want_one_version_fetch_it_once(store: MemoryStore, make_version: MakeVersion, tmp_path: Path) -> None:
    version, watched = make_version(), faulty(store)
    start = threading.Barrier(4)

    def fetch() -> None:
        start.wait()
        VersionCache(tmp_path / "cache", watched).fetch(version)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reads = [key for verb, key in watched.operations if verb == "read"]
    assert len(reads) == len(set(reads)) == len(version.manifest.objects())


def test_the_lock_of_a_live_holder_is_respected_and_that_of_a_dead_one_is_free(
    store: MemoryStore, make_version: MakeVersion, tmp_path: Path
) -> None:
    version, cache = make_version(), VersionCache(tmp_path / "cache", store)
    (tmp_path / "cache/locks").mkdir(parents=True)
    lock = tmp_path / f"cache/locks/{version.digest}.lock"
    program = (
        "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        with pytest.raises(Stopped, match="another process"):
            cache.fetch(version, stop=lambda: True)
        holder.kill()
        holder.wait()
        cache.fetch(version)
    check_whole(cache, version)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(path=st.text(st.sampled_from("./\\a\0"), max_size=12) | st.text(max_size=8))
def test_no_name_in_a_manifest_leads_out_of_the_cache(tmp_path: Path, path: str) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    store.create(layout.object_(digest), b"a")
    record = FileRecord(path, 0o644, 1, digest, (ChunkRecord(digest, 1),))
    version = _hostile(record)
    cage = tmp_path / "cage"
    cache = VersionCache(cage / "cache", store)
    try:
        local = cache.fetch(version)
        assert (local.code / path).read_bytes() == b"a"
        cache._disk.remove_tree(cage)
    except Corrupt:
        pass
    assert [entry.name for entry in tmp_path.iterdir() if entry != cage] == []
    if cage.exists():
        assert [entry.name for entry in cage.iterdir()] == ["cache"]


def _hostile(record: FileRecord) -> Version:
    from modelrepo.contract import parse_spec
    from modelrepo.environments.record import EnvironmentRecord
    from modelrepo.versions.manifest import Manifest

    environment = EnvironmentRecord(python="3.11", requires_python="", digest="e" * 64, pyproject_sha256="f" * 64)
    spec = parse_spec("contract: 1\nname: tiny\nentrypoint: model:Model\n")
    manifest = Manifest("tiny", "v1", "2026-01-01T00:00:00Z", spec.raw, environment, (record,))
    return Version("tiny", "v1", "d" * 64, manifest, spec)
