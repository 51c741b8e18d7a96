"""The repository as a box sees it through a gateway whose store cannot sign: the bytes pass through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.errors import Forbidden, NewerFormat, ObjectNotFound, StoreNotTrusted, Unreachable
from modelrepo.repository import Repository
from modelrepo.stores.founding import open_founded
from modelrepo.testing.small_versions import published, small_version
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.tokens import Grant, MemoryTokens, Role
from modelrepo_runtime.remote.connection import Connections
from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER
from modelrepo_runtime.remote.repository_store import RepositoryStore
from modelrepo_runtime.remote.talk import Talk
from modelrepo_runtime.testing.gateways import LiveGateway

CODE = {"model.py": b"x = 1\n", "big.bin": bytes(range(256)) * 10_000}


class Behind:
    """A gateway before a repository of one model, and tokens for it."""

    def __init__(self, repository: Repository, url: str, tokens: MemoryTokens) -> None:
        self.repository, self.url, self._tokens = repository, url, tokens
        self.connections = Connections()
        self._numbers = itertools.count()

    def talk(self, *models: str, role: Role = Role.WORKER) -> Talk:
        name = f"{role}-{next(self._numbers)}"
        return Talk(self.url, self._tokens.create(name, Grant(role, models=models))[1], self.connections)

    def wrong(self) -> Talk:
        return Talk(self.url, "mr_1_2", self.connections)

    def store(self, *models: str) -> RepositoryStore:
        return RepositoryStore(self.talk(*models))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    repository = Repository.init((folder / "repository").as_uri(), by="tests")
    small_version(repository.store, code=CODE, chunk_bytes=1 << 22)
    tokens = MemoryTokens()
    with closing(MemoryQueue("memory://behind")) as queue:
        parts = assemble(
            GatewaySettings(token_cache_s=0.0), queue, repository, JobStore(str(folder / "files")), tokens=tokens
        )
        with LiveGateway(parts) as gateway:
            found = Behind(repository, gateway.url, tokens)
            yield found
            found.connections.close()


def test_a_version_is_fetched_and_verified_through_the_gateway(behind: Behind, tmp_path: Path) -> None:
    store = behind.store("small")
    assert open_founded(store).id == behind.repository.id
    local = VersionCache(tmp_path, store).fetch(published(store, "v1"))
    assert {name: (local.code / name).read_bytes() for name in CODE} == CODE


def test_a_box_reads_objects_of_what_it_has_read_and_may_serve(behind: Behind) -> None:
    store = behind.store()
    (chunk,) = (
        chunk for file in published(store, "v1").manifest.code for chunk in file.chunks if file.path == "big.bin"
    )
    key = layout.object_(chunk.sha256)
    assert store.read(key) == CODE["big.bin"] == b"".join(map(bytes, store.read_pieces(key)))
    assert store.read_range(key, 5, 3) == CODE["big.bin"][5:8] and store.read_range(key, 10**9, 3) == b""
    assert b"".join(map(bytes, store.read_pieces(key, 2_559_000))) == CODE["big.bin"][2_559_000:]
    assert store.stat(key).size_bytes == len(CODE["big.bin"])
    with pytest.raises(ObjectNotFound):
        behind.store("small").read(key)
    stranger = behind.store("other")
    bundle = layout.bundle("e" * 64, None, "cp311", "linux", "a" * 64)
    for refused in (layout.manifest("small", "v1"), layout.active_file("small"), "pushes/1.json", bundle):
        with pytest.raises(Forbidden):
            stranger.read(refused)
        with pytest.raises(Forbidden):
            stranger.stat(refused)
    with pytest.raises(Forbidden):
        next(stranger.list(""))
    assert [*stranger.list("models/")] == []


def test_nothing_is_written_through_a_gateway(behind: Behind) -> None:
    store = behind.store("small", "m")
    with pytest.raises(StoreNotTrusted):
        store.create("a", b"")
    with pytest.raises(StoreNotTrusted):
        store.replace("a", b"")
    with pytest.raises(StoreNotTrusted):
        store.delete("a")


def test_a_token_of_another_role_or_none_is_refused(behind: Behind) -> None:
    for talk in (behind.talk(role=Role.SUBMIT), Talk(behind.url, None, behind.connections), behind.wrong()):
        with pytest.raises(Forbidden):
            HttpQueue(talk).welcome()
    with pytest.raises(Forbidden):
        HttpQueue(behind.talk("x")).as_queue.fleet()


def test_a_peer_of_an_unknown_protocol_is_told_what_to_upgrade(behind: Behind) -> None:
    talk = behind.talk("y")
    talk._headers[PROTOCOL_HEADER] = str(PROTOCOL + 1)
    with pytest.raises(NewerFormat, match="upgrade gateways first"):
        HttpQueue(talk).welcome()


def test_what_is_no_gateway_is_no_empty_answer(behind: Behind) -> None:
    with pytest.raises(Unreachable, match="is it a gateway"):
        HttpQueue(Talk(f"{behind.url}/elsewhere", None, behind.connections)).welcome()
    with pytest.raises(Unreachable, match="is it up"):
        HttpQueue(Talk("http://127.0.0.1:9")).welcome()
