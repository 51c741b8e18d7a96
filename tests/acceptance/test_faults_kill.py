"""Killed at every operation of the store, before it and after it: nothing torn is visible, and run again it completes.

In memory at each operation, by a store that then does nothing more (of pushes that is in test_publish.py); on SeaweedFS
by a real SIGKILL at one of them, at several with MODELREPO_ACCEPTANCE=full.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from modelrepo import Repository, layout
from modelrepo.clock import Clock
from modelrepo.copying.repository_copy import CopyOptions
from modelrepo.maintenance.prune import prune
from modelrepo.stores.faults import Fault, FaultyStore, KillNow, faulty
from modelrepo.stores.founding import found, open_founded
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.testing.s3_servers import SeaweedFS
from tests.acceptance.tiny_model import OPTIONS, write_model
from tests.acceptance.wholeness import Whole, check_repository

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
DAY_S = 24 * 3600.0
GARBAGE = "ab" + "0" * 62
PATIENCE_S = 120.0
SAMPLE = 8 if FULL else 1

Moment = Literal["before", "after"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("template") / "model")


@dataclass
class World:
    """Two repositories in memory, whose clocks stand still until somebody turns them."""

    buckets: dict[str, MemoryBucket] = field(default_factory=dict)
    at: float = 1e9

    def __post_init__(self) -> None:
        for name in ("here", "there"):
            held = dict(self.buckets[name].held) if name in self.buckets else {}
            self.buckets[name] = MemoryBucket(clock=lambda: self.at, held=held)

    def copy(self) -> World:
        return World(dict(self.buckets), self.at)

    def store(self, name: str = "here") -> MemoryStore:
        return MemoryStore(name, self.buckets[name])

    def open(self, name: str = "here", *faults: Fault) -> tuple[Repository, FaultyStore]:
        store = faulty(self.store(name), *faults)
        return Repository(open_founded(store)), store

    def look(self, name: str = "here") -> Whole:
        return check_repository(self.open(name)[0])


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    """Three versions, each promoted in its turn, and days later; beside them an object that nobody names."""
    world = World()
    for name in ("here", "there"):
        found(world.store(name))
    repository, store = world.open()
    for number in range(3):
        (folder / "w" / "a.bin").write_bytes(f"{number}".encode() * 3000)
        repository.promotions.promote("tiny", repository.push(folder, OPTIONS).version)
    store.create(layout.object_(GARBAGE), b"nobody names it")
    world.at += 5 * DAY_S
    return world


Does = Callable[[World, Repository, Path], object]


@dataclass(frozen=True, slots=True)
class Act:
    """What is killed. `has_happened` is asked of what is visible; `over`: whose operations are counted."""

    name: str
    do: Does
    has_happened: Callable[[World, Path], bool]
    over: str = "here"

    def __str__(self) -> str:
        return f"{self.name}, {self.over}" if self.over != "here" else self.name


def pull(world: World, repository: Repository, tmp_path: Path) -> None:
    repository.pull("tiny@v1", tmp_path / "pulled")


def has_pulled(world: World, tmp_path: Path) -> bool:
    """A folder that is there is whole."""
    pulled = tmp_path / "pulled"
    if pulled.exists():
        assert (pulled / "w" / "a.bin").read_bytes() == b"0" * 3000
        assert (pulled / "model.py").exists()
    return pulled.exists()


def promote(world: World, repository: Repository, tmp_path: Path) -> None:
    repository.promotions.promote("tiny", "v2")


def roll_back(world: World, repository: Repository, tmp_path: Path) -> None:
    if not has_rolled_back(world, tmp_path):  # a second one would go further back
        repository.promotions.rollback("tiny")


def has_rolled_back(world: World, tmp_path: Path) -> bool:
    whole = world.look()
    assert (whole.active, whole.generations) in (("v3", 3), ("v2", 4))
    return whole.active == "v2"


def edit(world: World, repository: Repository, tmp_path: Path) -> None:
    seen = repository.promotions.active_bytes("tiny")
    repository.promotions.edit("tiny", seen.replace(b"version: v3", b"version: v2"), seen)


def block(world: World, repository: Repository, tmp_path: Path) -> None:
    repository.promotions.block("tiny", "v1")


def has_blocked(world: World, tmp_path: Path) -> bool:
    return "v1" in world.open()[0].promotions.blocked("tiny")


def delete(world: World, repository: Repository, tmp_path: Path) -> None:
    repository.promotions.delete("tiny", "v1")


def has_deleted(world: World, tmp_path: Path) -> bool:
    whole = world.look()
    assert (whole.versions, whole.deleted) in ((("v1", "v2", "v3"), ()), (("v2", "v3"), ("v1",)))
    return bool(whole.deleted)


def prune_twice(world: World, repository: Repository, tmp_path: Path) -> None:
    """Mark, wait out the grace, sweep; wait again, tidy up."""
    clock = Clock(now=lambda: world.at, monotonic=lambda: world.at, sleep=lambda seconds: None)
    for _ in range(3):
        prune(repository.store, clock=clock)
        world.at += 1.1 * DAY_S


def has_pruned(world: World, tmp_path: Path) -> bool:
    assert world.look().versions == ("v1", "v2", "v3")
    return layout.object_(GARBAGE) not in {stat.key for stat in world.store().list(layout.OBJECTS)}


def copy_from(world: World, repository: Repository, tmp_path: Path) -> None:
    report = repository.copy_to(world.open("there")[0], "tiny", CopyOptions(with_active=True, jobs=2))
    assert not report.errors()


def copy_to(world: World, repository: Repository, tmp_path: Path) -> None:
    report = world.open("here")[0].copy_to(repository, "tiny", CopyOptions(with_active=True, jobs=2))
    assert not report.errors()


def has_copied(world: World, tmp_path: Path) -> bool:
    copied = world.look("there")
    assert copied.generations == (1 if copied.active else 0), "a history is never copied, a promotion is made once"
    for version in copied.versions:
        manifests = {name: world.store(name).read(layout.manifest("tiny", version)) for name in ("here", "there")}
        assert manifests["here"] == manifests["there"]
    return copied.active == "v3"


ACTS = [
    Act("pull", pull, has_pulled),
    Act("promote", promote, lambda world, _: world.look().generations == 4),
    Act("rollback", roll_back, has_rolled_back),
    Act("edit", edit, lambda world, _: world.look().active == "v2"),
    Act("block", block, has_blocked),
    Act("delete", delete, has_deleted),
    Act("prune", prune_twice, has_pruned),
    Act("copy", copy_from, has_copied),
    Act("copy", copy_to, has_copied, over="there"),
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("act", ACTS, ids=str)
def test_what_is_killed_at_any_operation_leaves_nothing_torn_and_completes_when_run_again(
    world: World, tmp_path: Path, act: Act, moment: Moment
) -> None:
    undisturbed = world.copy()
    repository, store = undisturbed.open(act.over)
    act.do(undisturbed, repository, tmp_path / "0")
    assert act.has_happened(undisturbed, tmp_path / "0")

    seen = []
    for at in range(2, len(store.operations) + 1):  # the first opens the repository
        killed, place = world.copy(), tmp_path / f"{at}"
        with pytest.raises(KillNow):
            repository, _ = killed.open(act.over, Fault(at, moment, how="kill"))
            act.do(killed, repository, place)
        for name in killed.buckets:
            killed.look(name)
        seen.append(act.has_happened(killed, place))
        killed.at += 5 * DAY_S  # what the dead have begun is over by then
        if not seen[-1] or act.name in ("delete", "prune", "copy", "promote"):
            act.do(killed, killed.open(act.over)[0], place)
        assert act.has_happened(killed, place)
        for name in killed.buckets:
            killed.look(name)
        if act.name == "pull":
            assert [path.name for path in place.iterdir()] == ["pulled"]
    assert len(seen) > 3
    if act.name != "prune":  # a later sweep frees what an earlier one was killed at
        assert seen == sorted(seen), "what had happened by an early kill must have happened by a later one"
    assert not seen[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from modelrepo import IndexSettings, PushOptions, Repository
from modelrepo.maintenance.prune import prune
from modelrepo.stores.faults import Fault, faulty
from modelrepo.stores.founding import open_founded
from modelrepo.stores.opening import open_store
from modelrepo.testing.s3_servers import SeaweedFS

verb, url, other, folder, at, moment = sys.argv[1:]
faults = [Fault(int(at), moment, how="kill")] if int(at) else []
store = faulty(open_store(url), *faults, on_kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
repository = Repository(open_founded(store))
folder = Path(folder)
if verb == "push":
    options = PushOptions(lock=True, check="none", index=IndexSettings(no_index=True))
    repository.push(folder / "model", options)
elif verb == "pull":
    repository.pull("tiny@v1", folder / "pulled")
elif verb == "promote":
    repository.promotions.promote("tiny", "v2")
elif verb == "delete":
    repository.promotions.delete("tiny", "v1")
elif verb == "prune":
    prune(repository.store)
elif verb == "copy":
    assert not Repository.open(other).copy_to(repository, "tiny").errors()
"""


def push(world: World, repository: Repository, tmp_path: Path) -> None:
    repository.push(tmp_path / "model", OPTIONS)


def prune_once(world: World, repository: Repository, tmp_path: Path) -> None:
    prune(repository.store)


def copy_versions(world: World, repository: Repository, tmp_path: Path) -> None:
    world.open("here")[0].copy_to(repository, "tiny")


VERBS: dict[str, Does] = {
    "push": push, "pull": pull, "promote": promote, "delete": delete, "prune": prune_once, "copy": copy_versions,
}  # fmt: skip
AFTERWARDS: dict[str, Callable[[Whole], bool]] = {
    "push": lambda whole: whole.versions[:4] == ("v1", "v2", "v3", "v4"),
    "promote": lambda whole: (whole.active, whole.generations) == ("v2", 4),
    "delete": lambda whole: (whole.versions, whole.deleted) == (("v2", "v3"), ("v1",)),
}


def has_all(whole: Whole) -> bool:
    return whole.versions == ("v1", "v2", "v3")


@pytest.fixture(scope="module")
def root(seaweed_server: SeaweedFS) -> Iterator[str]:
    """A bucket, and in it `empty`, a repository that the store's probe has gone before."""
    seaweed_server.create_bucket("killed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed_server.environment().items():
            patch.setenv(name, value)
        Repository.init("s3://killed/empty")
        yield "s3://killed"
    seaweed_server.delete_bucket("killed")


@pytest.mark.parametrize("verb", VERBS)
def test_a_process_that_gets_sigkill_before_s3_leaves_nothing_torn(
    root: str, world: World, folder: Path, tmp_path: Path, verb: str
) -> None:
    other = "s3://killed/empty"
    if verb == "copy":
        other = filled(f"{root}/source", world)
    for at in sample(verb, world, folder, tmp_path):
        here = Path(shutil.copytree(folder, tmp_path / f"{at}" / "model")).parent
        url = filled(f"{root}/{verb}-{at}", World() if verb == "copy" else world)
        died = attempt(verb, url, other, here, at=at)
        assert died.returncode == -signal.SIGKILL, died.stderr
        check_repository(Repository.open(url))
        assert not (here / "pulled").exists()
        again = attempt(verb, url, other, here, at=0)
        assert again.returncode == 0, again.stderr
        whole = check_repository(Repository.open(url))
        assert AFTERWARDS.get(verb, has_all)(whole), whole
        assert (here / "pulled").exists() == (verb == "pull")


def filled(url: str, world: World) -> str:
    """Make a repository beside `empty`, and put into it what `world` holds."""
    store, empty = open_store(url), open_store("s3://killed/empty")
    for key in (layout.REPOSITORY, layout.STORE):
        store.create(key, empty.read(key))
    source = world.store()
    for prefix in (layout.MODELS, layout.OBJECTS):
        for stat in source.list(prefix):
            store.create(stat.key, source.read(stat.key))
    return url


def attempt(verb: str, url: str, source: str, folder: Path, *, at: int) -> subprocess.CompletedProcess[str]:
    """Do `verb` in a process of its own that is killed at operation `at`; 0: at none."""
    command = [sys.executable, "-c", KILLED, verb, url, source, str(folder), str(at), "after" if at % 2 else "before"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def sample(verb: str, world: World, folder: Path, tmp_path: Path) -> list[int]:
    """Return operations to die at, past those that open the repository: the middle one, or several."""
    shutil.copytree(folder, tmp_path / "model")
    counted = world.copy()
    counted.at -= 5 * DAY_S  # on a server everything is new, and `filled` brings no leases
    for stat in counted.store().list(layout.PUSHES):
        counted.store().delete(stat.key)
    repository, store = counted.open("there" if verb == "copy" else "here")
    VERBS[verb](counted, repository, tmp_path)
    shutil.rmtree(tmp_path / "pulled", ignore_errors=True)
    length = len(store.operations)
    return sorted({max(3, length * part // (SAMPLE + 1)) for part in range(1, SAMPLE + 1)})
