"""Many processes on one cache: what two of them want is fetched once, whoever dies leaves nothing torn, and whatever
runs stays while everything else makes room."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.box_cache.checking import verify_box
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.fetching.fetcher import THREADS
from modelrepo.holds import try_take
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.small_versions import assert_right, published, small_version
from modelrepo.versions.version import Version
from modelrepo_runtime.testing.live import LiveBox, wait_gone
from tests.conftest import Bucket

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
PROCESSES = 16
ROUNDS = 20 if FULL else 1
DYING, GENERATIONS = 6, 6 if FULL else 2
LIMIT_S = 240.0
KIB = 1024

# Tells of each read; kills itself at its n-th step on the disk, if it is told to.
FETCHER = """
import os, signal, sys
from pathlib import Path
from modelrepo.stores.faults import FaultyStore
from modelrepo.stores.opening import open_store
from modelrepo.testing.fragile_disk import FragileDisk
from modelrepo.testing.small_versions import assert_right, published
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.fetching.disk import Disk

url, cache, log, attic, die_at, limit, *names = sys.argv[1:]
told = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def tell(verb, key):
    if verb.startswith("read") and key.startswith("objects/"):
        os.write(told, key.encode() + b"\\n")

class Dying(FragileDisk):
    def _step(self):
        super()._step()
        if self.count == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)

disk = Dying(Path(attic)) if int(die_at) else Disk()
store = FaultyStore(open_store(url), before=tell)
box = VersionCache(Path(cache), store, limit_bytes=int(limit) or None, disk=disk)
print("ready", flush=True)
sys.stdin.readline()
for name in names:
    assert_right(box.fetch(published(store, name)))
"""


@dataclass
class Fetchers:
    """Processes that fetch versions into one cache, all at once."""

    url: str
    folder: Path
    limit_bytes: int = 0
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def log(self) -> Path:
        return self.folder / "reads"

    def start(self, place: int, names: list[str], *, die_at: int = 0) -> None:
        attic = self.folder / "attic" / str(place)
        options = [self.url, self.cache, self.log, attic, die_at, self.limit_bytes, *names]
        self.running[place] = subprocess.Popen(
            [sys.executable, "-c", FETCHER, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def go(self) -> None:
        """Let all of them begin, once each is ready."""
        for process in self.running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", process.communicate()[1].decode()
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def ends(self) -> dict[int, int]:
        """Wait for all of them; returns their exit codes."""
        codes = {}
        for place, process in list(self.running.items()):
            told = process.communicate(timeout=LIMIT_S)[1].decode()
            codes[place] = process.returncode
            assert process.returncode in (0, -signal.SIGKILL), told
            del self.running[place]
        return codes

    def reads(self) -> Counter[str]:
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()


def make_versions(store: ObjectStore, count: int, size_bytes: int = 192 * KIB) -> dict[str, Version]:
    """Versions of which each shares a file with its neighbour, and one with all."""

    def data(name: str) -> bytes:
        return hashlib.shake_128(name.encode()).digest(size_bytes)

    return {
        f"v{number}": small_version(
            store,
            f"v{number}",
            checkpoints={
                "own": {"w.bin": data(f"own {number}"), "x/w.bin": data(f"x {number}")},
                "near": {"a.bin": data(f"near {number}"), "b.bin": data(f"near {(number + 1) % count}")},
                "all": {"c.bin": data("all")},
            },
            chunk_bytes=64 * KIB,
        )
        for number in range(count)
    }


def wanted_objects(versions: dict[str, Version]) -> set[str]:
    return {layout.object_(digest) for version in versions.values() for digest in version.manifest.objects()}


def check(fetchers: Fetchers, store: ObjectStore, versions: dict[str, Version]) -> None:
    cache = VersionCache(fetchers.cache, store)
    for version in versions.values():
        assert cache.ready(version) == frozenset(version.manifest.checkpoints)
        assert_right(cache.fetch(version))
    assert verify_box(fetchers.cache) == []
    assert not list((fetchers.cache / "incoming").glob("*/*"))


def choose_names(chance: random.Random, versions: dict[str, Version], place: int) -> list[str]:
    """Three versions for each process; together they want every version."""
    known = list(versions)
    return chance.sample([known[place % len(known)], *chance.sample(known, 2)], 3)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_sixteen_processes_read_every_object_once(tmp_path: Path, seed: int) -> None:
    read_once((tmp_path / "store").as_uri(), tmp_path, seed, PROCESSES)


def test_every_object_is_asked_of_a_bucket_once(seaweed: Bucket, tmp_path: Path) -> None:
    read_once(seaweed.url, tmp_path, 0, PROCESSES if FULL else 4)


def read_once(url: str, folder: Path, seed: int, processes: int) -> None:
    store, chance = open_store(url), random.Random(seed)
    versions = make_versions(store, 6)
    fetchers = Fetchers(url, folder)
    names = {place: choose_names(chance, versions, place) for place in range(processes)}
    for place in names:
        fetchers.start(place, names[place])
    fetchers.go()
    assert not any(fetchers.ends().values())
    fetched = {name: version for name, version in versions.items() if any(name in some for some in names.values())}
    assert fetchers.reads() == Counter(wanted_objects(fetched))
    check(fetchers, store, fetched)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_fetches_leave_nothing_torn_and_others_take_over(tmp_path: Path, seed: int) -> None:
    url, chance = (tmp_path / "store").as_uri(), random.Random(seed)
    store = open_store(url)
    versions = make_versions(store, 6)
    fetchers = Fetchers(url, tmp_path)
    names = {place: choose_names(chance, versions, place) for place in range(PROCESSES)}
    deaths = 0
    for _ in range(GENERATIONS):  # what one leaves, the next goes on with, and dies over a little later
        for place in range(DYING):
            fetchers.start(place, names[place], die_at=chance.randrange(2, 12))
        fetchers.go()
        deaths += sum(code != 0 for code in fetchers.ends().values())
    assert deaths, "a version takes more steps on the disk than all of them may make before they die"
    for place in names:
        fetchers.start(place, names[place], die_at=chance.randrange(2, 60) if place < DYING else 0)
    fetchers.go()
    killed = [place for place, code in fetchers.ends().items() if code]
    for place in killed:
        fetchers.start(place, names[place])
    fetchers.go()
    assert set(fetchers.ends().values()) == {0}
    deaths += len(killed)
    reads = fetchers.reads()
    assert set(reads) == wanted_objects(versions)
    assert reads.total() <= len(reads) + deaths * THREADS  # nothing is read again but what was under way at a death
    check(fetchers, store, versions)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_processes_that_need_more_than_there_is_room_for_evict_only_what_nobody_uses(tmp_path: Path, seed: int) -> None:
    url, chance = (tmp_path / "store").as_uri(), random.Random(seed)
    store = open_store(url)
    versions = make_versions(store, 8)
    served = VersionCache(tmp_path / "cache", store).fetch(versions["v0"])
    # Each fetch holds at most one version; so many fit at once, and no more.
    processes = 4
    fetchers = Fetchers(url, tmp_path, limit_bytes=(processes + 1) * 1200 * KIB)
    for place in range(processes):
        names = [*chance.sample(list(versions), 8), "v0"]
        fetchers.start(place, names, die_at=chance.randrange(20, 400) if place % 2 else 0)
    fetchers.go()
    fetchers.ends()
    assert_right(served)
    for version in versions.values():
        cache = VersionCache(tmp_path / "cache", store)
        if (ready := cache.ready(version)) is not None:
            assert_right(cache.fetch(version, checkpoints=ready))
    assert verify_box(tmp_path / "cache") == []
    total = {f.st_ino: f.st_blocks * 512 for p in (tmp_path / "cache").rglob("*") if (f := p.lstat())}
    assert sum(total.values()) <= fetchers.limit_bytes + 1200 * KIB  # of the killed, half a version may lie about


SERVED = """
import hashlib, os

class Model:
    def load(self, ctx):
        self.folder = ctx.checkpoint("weights")

    def run(self, job):
        code = open(__file__).read()
        return [hashlib.sha256(open(os.path.join(self.folder, "w.bin"), "rb").read()).hexdigest(), len(code)]
"""


def test_what_a_worker_serves_stays_until_nobody_serves_it(tmp_path: Path) -> None:
    weights = hashlib.shake_128(b"served").digest(512 * KIB)
    yaml = "checkpoints: {weights: checkpoints/weights}\n"
    with LiveBox(tmp_path / "box") as box:
        folder = box.folder / "source-live" / "checkpoints" / "weights"
        folder.mkdir(parents=True)
        (folder / "w.bin").write_bytes(weights)
        version = box.repository.version("live", box.push(SERVED, yaml=yaml))
        box.promote(version.version)
        worker = box.worker(cache_size="40MB")
        box.serves(version.version, slots=1)
        others = open_store((tmp_path / "others").as_uri())
        cache = VersionCache(worker.cache, others, limit_bytes=40_000_000)
        for number in range(8):
            other = small_version(others, f"v{number}", checkpoints={"w": {"w.bin": os.urandom(9_000_000)}})
            assert_right(cache.fetch(other))
        assert cache.ready(published(others, "v0")) is None
        job = box.client.wait(box.client.submit("live")["id"])
        assert job["result"] == [hashlib.sha256(weights).hexdigest(), len(SERVED)]
        hold = worker.cache / "holds" / version.digest
        assert try_take(hold, shared=False) is None
        children = worker.children()
        worker.send(signal.SIGKILL)
        worker.wait()
        assert wait_gone(children) == []
        cache.tidy()
        for number in range(8, 12):
            assert_right(
                cache.fetch(small_version(others, f"v{number}", checkpoints={"w": {"w.bin": os.urandom(9_000_000)}}))
            )
        assert cache.ready(version) is None
