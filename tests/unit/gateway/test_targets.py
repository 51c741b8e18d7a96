"""What a gateway tells of active versions: numbered, and never an older look after a newer one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelrepo import layout
from modelrepo.repository import Repository
from modelrepo.testing.small_versions import small_version
from modelrepo_runtime.gateway.targets import Targets
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import JobQueue


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with closing(MemoryQueue("memory://targets")) as queue:
        yield queue


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.init(tmp_path.as_uri(), by="tests")
    for version in ("v1", "v2"):
        small_version(repository.store, version)
    return repository


def seen(targets: Targets) -> list[tuple[int, str | None]]:
    targets.look(["small"])
    return [(look.seq, look.target.version if look.target else None) for look in targets.newer({"small": 0})]


def test_each_change_gets_the_next_number_and_nothing_else_does(repository: Repository, queue: JobQueue) -> None:
    targets = Targets(repository, queue, 60)
    assert seen(targets) == []
    for number, version in enumerate(("v1", "v2"), 1):
        repository.promotions.promote("small", version, force=True)
        assert seen(targets) == seen(targets) == [(number, version)]
    assert targets.newer({"small": 2}) == () and targets.models() == ("small",)


def test_a_gateway_that_was_slow_appends_nothing_after_a_newer_look(
    repository: Repository, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.promotions.promote("small", "v1", force=True)
    quick, slow = Targets(repository, queue, 60), Targets(repository, queue, 60)
    read: Any = slow._read

    def read_and_fall_behind(model: str, known: Any) -> Any:
        found = read(model, known)
        repository.promotions.promote("small", "v2", force=True)
        assert seen(quick) == [(1, "v2")]
        return found

    monkeypatch.setattr(slow, "_read", read_and_fall_behind)
    assert seen(slow) == [(1, "v2")]


def test_what_cannot_be_read_changes_nothing(repository: Repository, queue: JobQueue) -> None:
    targets = Targets(repository, queue, 60)
    repository.promotions.promote("small", "v1", force=True)
    assert seen(targets) == [(1, "v1")]
    repository.store.replace(layout.active_file("small"), b"{")
    assert seen(targets) == [(1, "v1")]
