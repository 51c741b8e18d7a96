"""delete: the history first, then the tombstone; never what is live or what a rollback brings back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelrepo.errors import InvalidActiveFile, VersionDeleted, VersionInUse, VersionNotFound
from modelrepo.promotion import Kind, Promotions
from modelrepo.stores.faults import Fault, KillNow, Verb, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.version_table import VersionTable

TOMBSTONE = "models/m/versions/v1/deleted.json"


@pytest.fixture(params=["memory", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore("m", MemoryBucket()) if request.param == "memory" else FilesystemStore(tmp_path / "repository")


@pytest.fixture
def table() -> VersionTable:
    return VersionTable({"m": ["v1", "v2", "v3", "v4"]})


@pytest.fixture
def promotions(store: ObjectStore, table: VersionTable) -> Promotions:
    return promoted(store, table)


def promoted(store: ObjectStore, table: VersionTable) -> Promotions:
    promotions = Promotions(store, table, by="me@here", sleep=lambda _: None)
    for version in ("v1", "v2", "v3"):
        promotions.promote("m", version)
    return promotions


def has(store: ObjectStore, key: str) -> bool:
    return any(stat.key == key for stat in store.list("models/"))


def test_a_deletion_is_an_entry_and_then_a_tombstone(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    entry = promotions.delete("m", "v1", reason="trained on the wrong set")
    assert (entry.generation, entry.kind, entry.version, entry.digest) == (
        4,
        Kind.DELETE,
        "v1",
        table.digest("m", "v1"),
    )
    tombstone = json.loads(store.read(TOMBSTONE))
    assert tombstone["reason"] == "trained on the wrong set"
    assert tombstone["generation"] == 4
    assert promotions.state("m").version == "v3"
    with pytest.raises(VersionDeleted):
        promotions.promote("m", "v1", force=True)


def test_what_is_live_and_what_a_rollback_brings_back_cannot_be_deleted(
    promotions: Promotions, store: ObjectStore
) -> None:
    with pytest.raises(VersionInUse, match="m@v3: it is active"):
        promotions.delete("m", "v3")
    with pytest.raises(VersionInUse, match="m@v2: it is what `modelrepo rollback m` brings back"):
        promotions.delete("m", "v2")
    with pytest.raises(VersionInUse):
        promotions.refuse_deletion("m", "v3")
    assert len(promotions.history("m")) == 3
    assert not has(store, TOMBSTONE.replace("v1", "v2"))


def test_an_edit_by_hand_makes_a_version_live_also_for_deletion(promotions: Promotions, store: ObjectStore) -> None:
    active = store.read("models/m/active.yaml")
    store.replace("models/m/active.yaml", active.replace(b"version: v3", b"version: v1"))
    with pytest.raises(VersionInUse, match="active"):
        promotions.delete("m", "v1")
    with pytest.raises(VersionInUse, match="rollback"):
        promotions.delete("m", "v3")
    assert promotions.delete("m", "v2").generation == 5  # after the entry that records the edit


def test_nothing_is_deleted_while_nobody_can_say_what_is_live(promotions: Promotions, store: ObjectStore) -> None:
    store.replace("models/m/active.yaml", b"broken: [")
    with pytest.raises(InvalidActiveFile):
        promotions.delete("m", "v1")


def test_a_version_that_is_not_there_cannot_be_deleted(promotions: Promotions) -> None:
    with pytest.raises(VersionNotFound):
        promotions.delete("m", "v9")


def test_a_deletion_that_was_killed_anywhere_is_gone_through_with(table: VersionTable) -> None:
    counting = faulty(MemoryStore("m", MemoryBucket()))
    before = len(promoted(counting, table).history("m")) and len(counting.operations)
    Promotions(counting, table).delete("m", "v1")
    for at in range(1, len(counting.operations) - before + 1):
        for moment in ("before", "after"):
            store = MemoryStore("m", MemoryBucket())
            promoted(store, table)
            with pytest.raises(KillNow):
                killed = faulty(store, Fault(at, moment, "kill"))
                Promotions(killed, table).delete("m", "v1")
            if has(store, TOMBSTONE):
                assert len(Promotions(store, table).history("m")) == 4
            entry = Promotions(store, table).delete("m", "v1")
            assert entry.generation == 4
            assert has(store, TOMBSTONE)
            assert [each.kind for each in Promotions(store, table).history("m")].count(Kind.DELETE) == 1
            assert Promotions(store, table).delete("m", "v1") == entry


def test_a_lost_acknowledgement_deletes_once(table: VersionTable) -> None:
    for at in (1, 2, 3):
        store = MemoryStore("m", MemoryBucket())
        promoted(store, table)
        lossy = faulty(store, Fault(at, "after", verbs=frozenset({"create", "replace"})))
        assert Promotions(lossy, table).delete("m", "v1").generation == 4
        assert has(store, TOMBSTONE)
        assert len(Promotions(store, table).history("m")) == 4


def test_a_promotion_that_was_faster_saves_the_version(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    faster = [Promotions(store, table)]

    def overtake(verb: Verb, key: str) -> None:
        if verb == "create" and key.endswith("00000004.yaml") and faster:
            faster.pop().promote("m", "v1")

    with pytest.raises(VersionInUse):
        Promotions(faulty(store, before=overtake), table).delete("m", "v1")
    assert promotions.state("m").version == "v1"
    assert not has(store, TOMBSTONE)


def test_adding_wheels_is_written_down_and_leaves_what_is_live_alone(promotions: Promotions) -> None:
    entry = promotions.vendored("m", "v1", reason="cp311-linux_x86_64")
    assert (entry.generation, entry.kind, entry.reason) == (4, Kind.VENDOR, "cp311-linux_x86_64")
    assert promotions.state("m").version == "v3"
    assert promotions.previous("m") == "v2"
