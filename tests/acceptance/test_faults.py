"""A bad network between us and S3: a proxy of ours before SeaweedFS answers, cuts, slows and loses what it is told to.

Each row of FAULTS is done to each act of ACTS, in a repository of its own. MODELREPO_ACCEPTANCE=full does them all,
otherwise each fault meets one of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from modelrepo import Repository, layout
from modelrepo.clock import Clock
from modelrepo.errors import Unreachable
from modelrepo.stores import bucket, single_put
from modelrepo.stores.founding import open_founded
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.stores.retrying import Patience
from modelrepo.testing.proxy import Act, Answer, CutAnswer, CutRequest, Hang, Proxy, Reset, Slow, Swallow
from modelrepo.testing.s3_servers import SeaweedFS
from tests.acceptance.tiny_model import OPTIONS, write_model
from tests.acceptance.wholeness import check_repository

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
TEMPLATE = "memory://faults-template"
READ_TIMEOUT_S = 3
PATIENCE = Patience(tries=4, fewest_tries=3, total_s=5.0, delete_s=5.0, first_pause_s=0.001, longest_pause_s=0.01)
HURRIED = Clock(sleep=lambda seconds: None)
_numbers = count()

Outcome = Literal["done", "unreachable", "either"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What the network does, and what comes of it. With `on_connections` whole connections meet it."""

    name: str
    act: Act
    method: str = ".*"
    target: str = ""
    times: int | None = 1
    outcome: Outcome = "done"
    on_connections: bool = False

    def apply(self, proxy: Proxy) -> Callable[[], int]:
        """Return how often it has struck."""
        if self.on_connections:
            assert isinstance(self.act, Hang | Reset)
            rule = proxy.on_connection(self.act, times=self.times)
        else:
            rule = proxy.on(self.act, self.method, self.target, times=self.times)
        return lambda: rule.struck


OBJECT, MANIFEST, HISTORY = r"/objects/sha256/", r"/manifest\.json$", r"/history/\d+\.yaml$"
ACTIVE, LEASE = r"/active\.yaml$", r"/pushes/"

FAULTS = [
    Fault("a storm of 503", Answer(503, "SlowDown"), times=2),
    Fault("a storm of 500", Answer(500, "InternalError"), times=2),
    Fault("throttling with 429", Answer(429, "TooManyRequests"), times=2),
    Fault("a storm without end", Answer(503, "SlowDown"), times=None, outcome="unreachable"),
    Fault("every PUT is refused", Answer(500, "InternalError"), "PUT", times=None, outcome="unreachable"),
    Fault("connections are reset", Reset(), times=2, on_connections=True),
    Fault("a request is reset", Reset()),
    Fault("every request is reset", Reset(), times=None, outcome="unreachable"),
    Fault("a request is never answered", Hang()),
    Fault("a slow line", Slow(latency_s=0.02, bytes_per_s=1 << 20), times=None),
    Fault("an answer is cut", CutAnswer(20), "GET", OBJECT),
    Fault("every answer is cut", CutAnswer(20), "GET", OBJECT, times=None, outcome="unreachable"),
    Fault("an object is cut on its way in", CutRequest(20), "PUT", OBJECT),
    Fault("a manifest is cut on its way in", CutRequest(20), "PUT", MANIFEST),
    Fault("a history entry is cut on its way in", CutRequest(20), "PUT", HISTORY),
    Fault("every object is cut on its way in", CutRequest(20), "PUT", OBJECT, times=None, outcome="unreachable"),
    Fault("the acknowledgement of a lease is lost", Swallow(), "PUT", LEASE),
    Fault("the acknowledgement of an object is lost", Swallow(), "PUT", OBJECT),
    Fault("the acknowledgement of the manifest is lost", Swallow(), "PUT", MANIFEST),
    Fault("the acknowledgement of a history entry is lost", Swallow(), "PUT", HISTORY),
    Fault("the acknowledgement of active.yaml is lost", Swallow(), "PUT", ACTIVE),
    Fault("every acknowledgement is lost", Swallow(), "PUT", times=None, outcome="either"),
    Fault("every answer is lost", Swallow(), times=None, outcome="unreachable"),
]


@dataclass(frozen=True, slots=True)
class Doing:
    """One act of a person. `writes` is what it PUTs, as FAULTS name it."""

    name: str
    do: Callable[[Repository, Path], object]
    writes: tuple[str, ...]

    def meets(self, fault: Fault) -> bool:
        if fault.target and fault.method == "PUT":
            return fault.target in self.writes
        if fault.method == "PUT":
            return bool(self.writes)
        return not fault.target or self.name == "pull"


def opened(url: str) -> Repository:
    return Repository(open_founded(open_store(url, patience=PATIENCE)))


def push(repository: Repository, folder: Path) -> None:
    (folder / "w" / "a.bin").write_bytes(b"new" * 1000)
    repository.push(folder, OPTIONS, clock=HURRIED)


def pull(repository: Repository, folder: Path) -> None:
    target = folder.parent / f"pulled-{next(_numbers)}"
    try:
        repository.pull("tiny@v1", target)
    except Unreachable:
        assert not target.exists(), "a pull that failed left something behind"
        raise
    assert (target / "w" / "b.bin").read_bytes() == (folder / "w" / "b.bin").read_bytes()


def promote(repository: Repository, folder: Path) -> None:
    repository.promotions.promote("tiny", "v1")


def rollback(repository: Repository, folder: Path) -> None:
    repository.promotions.rollback("tiny")


ACTS = [
    Doing("push", push, (LEASE, OBJECT, MANIFEST)),
    Doing("pull", pull, ()),
    Doing("promote", promote, (HISTORY, ACTIVE)),
    Doing("rollback", rollback, (HISTORY, ACTIVE)),
]


def pairs() -> list[tuple[Fault, Doing]]:
    """Every fault with every act that meets it; otherwise with one of them, the next fault with the next."""
    met = [[(fault, act) for act in ACTS if act.meets(fault)] for fault in FAULTS]
    return [pair for group in met for pair in group] if FULL else [group[n % len(group)] for n, group in enumerate(met)]


PAIRS = pairs()


@pytest.fixture(scope="module")
def proxy(seaweed_server: SeaweedFS) -> Iterator[Proxy]:
    host, _, port = seaweed_server.endpoint.removeprefix("http://").partition(":")
    seaweed_server.create_bucket("faults")
    with Proxy(host, int(port)) as proxy:
        yield proxy
    seaweed_server.delete_bucket("faults")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, of which two versions are published in TEMPLATE; the second is active."""
    folder = write_model(tmp_path_factory.mktemp("template") / "model", weights={"b.bin": b"b" * 5000})
    repository = Repository.init(TEMPLATE)
    for data in (b"one" * 1000, b"two" * 1000):
        (folder / "w" / "a.bin").write_bytes(data)
        repository.promotions.promote("tiny", repository.push(folder, OPTIONS).version)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "model"))


@pytest.fixture(scope="module")
def behind(proxy: Proxy, template: Path, seaweed_server: SeaweedFS) -> Iterator[ObjectStore]:
    """The bucket behind the proxy, and the settings by which everybody reaches it there; time-outs are short."""
    settings = seaweed_server.environment() | {"AWS_ENDPOINT_URL": proxy.endpoint}
    options = bucket.DIALECTS["s3"].options
    impatient = {**options["config_kwargs"], "read_timeout": READ_TIMEOUT_S}
    dialect = replace(bucket.DIALECTS["s3"], options={**options, "config_kwargs": impatient})
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(single_put, "ANSWER_TIMEOUT_S", READ_TIMEOUT_S)
        patch.setattr(bucket, "DIALECTS", {**bucket.DIALECTS, "s3": dialect})
        Repository.init("s3://faults/first")
        yield open_store("s3://faults")


@pytest.fixture
def url(proxy: Proxy, behind: ObjectStore) -> Iterator[str]:
    """A repository behind the proxy that holds what TEMPLATE holds; a probe for each would take long."""
    number, source = next(_numbers), open_store(TEMPLATE)
    for key in (layout.REPOSITORY, layout.STORE):
        behind.create(f"{number}/{key}", behind.read(f"first/{key}"))
    for folder in (layout.MODELS, layout.OBJECTS):
        for stat in source.list(folder):
            behind.create(f"{number}/{stat.key}", source.read(stat.key))
    yield f"s3://faults/{number}"
    proxy.heal()


@pytest.mark.parametrize(("fault", "act"), PAIRS, ids=[f"{act.name}: {fault.name}" for fault, act in PAIRS])
def test_a_bad_network_is_borne_or_named(proxy: Proxy, url: str, folder: Path, fault: Fault, act: Doing) -> None:
    if fault.on_connections:  # once one is open, a quiet act needs no other
        struck, repository = fault.apply(proxy), opened(url)
    else:
        repository, struck = opened(url), fault.apply(proxy)
    outcome: Outcome = "done"
    try:
        act.do(repository, folder)
    except Unreachable as error:
        outcome = "unreachable"
        check_message(str(error), url)
    assert struck(), "the fault met nothing"
    assert fault.outcome in (outcome, "either")

    proxy.heal()
    fresh = opened(url)
    seen = check_repository(fresh)
    assert seen.versions in (("v1", "v2"), ("v1", "v2", "v3"))
    assert seen.generations in (2, 3)
    changed = seen.versions != ("v1", "v2") or seen.generations != 2
    if outcome == "done":
        assert changed == bool(act.writes)
    if not changed or act.name in ("push", "promote"):  # a second rollback would go further back
        act.do(fresh, folder)
    assert check_repository(fresh).generations == (3 if act.name in ("promote", "rollback") else 2)


def check_message(message: str, url: str) -> None:
    """The message names an object and the store that holds it, and says what to do."""
    assert re.search(r"(models/tiny|objects/sha256|pushes|prunes)/\S*", message), message
    assert url in message, message
    assert re.search(r"run it again|push again", message), message
