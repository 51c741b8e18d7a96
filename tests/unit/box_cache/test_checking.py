from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelrepo.box_cache.checking import LocalProblem, remove_broken, verify_box
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.errors import Stopped
from modelrepo.stores.faults import faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.small_versions import assert_right, small_version
from modelrepo.versions.version import LocalVersion

CODE = {"model.py": b"class Model: ...", "tools/run.sh": b"#!"}
CHECKPOINTS = {"own": {"a/w.bin": b"weights!" * 9, "empty.txt": b""}, "both": {"s.bin": b"shared" * 9}}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("check", MemoryBucket())


@pytest.fixture
def cache(store: MemoryStore, tmp_path: Path) -> VersionCache:
    return VersionCache(tmp_path / "cache", store)


@pytest.fixture
def local(store: MemoryStore, cache: VersionCache) -> LocalVersion:
    """A version of which nobody holds anything any more."""
    found = cache.fetch(small_version(store, code=CODE, checkpoints=CHECKPOINTS, chunk_bytes=32))
    found.let_go()
    return found


def write(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def test_a_cache_as_it_was_fetched_has_no_problem_and_every_byte_is_read(
    store: MemoryStore, cache: VersionCache, local: LocalVersion
) -> None:
    other = small_version(store, "v2", checkpoints={"both": CHECKPOINTS["both"]}, chunk_bytes=32)
    cache.fetch(other)
    seen: list[tuple[int, int | None]] = []
    assert cache.verify(progress=lambda phase, done, total: seen.append((done, total))) == []
    files = [*CODE.values(), *CHECKPOINTS["own"].values(), *CHECKPOINTS["both"].values(), b"VERSION = 'v2'\n"]
    size = sum(map(len, files))
    assert seen[-1] == (size, size)
    assert verify_box(cache.cache / "absent") == []
    with pytest.raises(Stopped):
        cache.verify(stop=lambda: True)


@pytest.mark.parametrize(
    ("path", "damage", "message"),
    [
        ("code/model.py", b"class Model: ..!", "holds other bytes than chunk sha256:"),
        ("code/model.py", b"short", "has 5 bytes instead of 16"),
        ("code/tools/run.sh", None, "is missing"),
        ("checkpoints/own/a/w.bin", b"weights!" * 8 + b"weights?", "holds other bytes than chunk sha256:"),
        ("checkpoints/own/empty.txt", b"more", "has 4 bytes instead of 0"),
        ("checkpoints/both/s.bin", None, "is missing"),
        ("manifest.json", b"{}", "is missing, or not what READY says"),
        ("manifest.json", None, "is missing, or not what READY says"),
        ("code/planted.py", b"import evil", "does not belong to the version"),
        ("checkpoints/own/more.bin", b"more", "does not belong to the version"),
    ],
)
def test_damage_is_found_named_removed_and_fetched_again(
    store: MemoryStore, cache: VersionCache, local: LocalVersion, path: str, damage: bytes | None, message: str
) -> None:
    file = local.folder / path
    if damage is None:
        file.unlink()
    elif file.exists():
        write(file, damage)
    else:
        file.write_bytes(damage)
    problems = cache.verify()
    (problem,) = [problem for problem in problems if problem.versions]
    assert problem.versions == (local.version.digest,)
    assert message in str(problem)
    assert problem.content or problem.path == file
    assert remove_broken(cache.cache, problems) == []
    assert cache.ready(local.version) is None
    watched = faulty(store)
    assert_right(VersionCache(cache.cache, watched).fetch(local.version))
    assert watched.operations != []
    assert cache.verify() == []


def test_a_shared_file_that_rotted_is_a_problem_of_every_version_that_has_it(
    store: MemoryStore, cache: VersionCache, local: LocalVersion
) -> None:
    other = small_version(store, "v2", checkpoints={"both": CHECKPOINTS["both"]}, chunk_bytes=32)
    served = cache.fetch(other)
    write(local.folder / "checkpoints/both/s.bin", b"rotten" * 9)
    (problem,) = cache.verify()
    assert problem.content
    assert set(problem.versions) == {local.version.digest, other.digest}
    told = remove_broken(cache.cache, [problem])
    assert told == [f"version {other.digest[:12]} is used by pid {os.getpid()}; end it, and run this again"]
    assert problem.path.exists()
    assert cache.ready(other) is not None
    served.let_go()
    assert remove_broken(cache.cache, cache.verify()) == []
    for version in (local.version, other):
        assert_right(cache.fetch(version))
    assert cache.verify() == []


def test_a_file_that_nobody_vouches_for_is_never_used(
    store: MemoryStore, cache: VersionCache, local: LocalVersion
) -> None:
    stray = cache.cache / "objects" / "ab" / ("ab" * 32)
    stray.parent.mkdir()
    stray.write_bytes(b"stray")
    (problem,) = cache.verify()
    assert problem == LocalProblem(stray, problem.message, (), content=True)
    assert remove_broken(cache.cache, [problem]) == []
    assert not stray.exists()
    assert cache.ready(local.version) is not None


def test_links_that_became_copies_are_looked_at_themselves(cache: VersionCache, local: LocalVersion) -> None:
    link = local.folder / "checkpoints/own/a/w.bin"
    data = link.read_bytes()
    link.unlink()
    link.write_bytes(data)
    assert cache.verify() == []
    link.write_bytes(data[:-1] + b"?")
    assert [problem.path for problem in cache.verify()] == [link]
    link.unlink()
    link.symlink_to("/etc/hostname")
    assert [problem.message for problem in cache.verify()] == ["is no file"]
