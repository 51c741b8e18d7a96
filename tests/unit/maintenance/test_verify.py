"""verify reads everything once, says what is wrong and whose it is, and brings back what another repository has."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.errors import VersionDeleted, VersionNotFound
from modelrepo.maintenance.needs import Scope
from modelrepo.maintenance.prune import prune
from modelrepo.maintenance.repairing import Repairs
from modelrepo.maintenance.verifying import VerifyReport, verify
from modelrepo.promotion import Promotions
from modelrepo.repository import Repository
from modelrepo.stores.faults import faulty
from modelrepo.stores.founding import found
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.pieces import RANGE_BYTES
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.catalogue import Catalogue
from tests.unit.maintenance.stocked import DAY, Turned, bury, keys, objects, put

MANIFEST = "models/m/versions/v1/manifest.json"


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore("m", MemoryBucket())
    put(store, b"shared", b"of v1", wheels=(b"wheel",))
    put(store, b"shared", b"of v2", wheels=(b"wheel",))
    promotions(store).promote("m", "v1")
    return store


@pytest.fixture
def backup(store: MemoryStore) -> MemoryStore:
    """Every byte of `store` as it was."""
    copy = MemoryStore("backup", MemoryBucket())
    for stat in list(store.list("")):
        copy.create(stat.key, store.read(stat.key))
    return copy


def promotions(store: ObjectStore) -> Promotions:
    return Promotions(store, Catalogue(store), by="me", sleep=lambda _: None)


def look(
    store: ObjectStore, version: str | None = None, *, quick: bool = False, source: ObjectStore | None = None
) -> VerifyReport:
    repairs = None if source is None else Repairs(store, source, "me", Clock())
    scope = Scope(store, promotions(store), None if version is None else ("m", version))
    return verify(scope, quick=quick, repairs=repairs)


def key(data: bytes) -> str:
    return layout.object_(sha256(data))


def damage(store: MemoryStore) -> None:
    store.delete(key(b"of v2"))
    store.replace(key(b"of v1"), b"of")
    store.replace(key(b"shared"), b"chared")
    store.replace(key(b"wheel"), b"wheel and more")


def test_what_is_whole_is_read_once_and_named_so(store: MemoryStore) -> None:
    counting = faulty(store)
    report = look(counting)
    assert not report.problems
    assert (report.versions, report.bundles, report.objects, report.size_bytes) == (2, 1, 4, 21)
    reads = Counter(key for verb, key in counting.operations if verb.startswith("read"))
    assert {reads[stat.key] for stat in store.list(layout.OBJECTS)} == {1}


def test_each_kind_of_damage_is_named_with_the_versions_and_paths_that_it_hits(store: MemoryStore) -> None:
    damage(store)
    found = {problem.key: problem for problem in look(store).wrong}
    assert {key: problem.fault for key, problem in found.items()} == {
        key(b"of v2"): "missing",
        key(b"of v1"): "truncated",
        key(b"shared"): "corrupt",
        key(b"wheel"): "corrupt",
    }
    assert found[key(b"of v1")].message == "has 2 bytes instead of 5"
    assert found[key(b"wheel")].message == "has 14 bytes instead of 5"
    assert found[key(b"shared")].used_by == ("m@v1 code 0.bin", "m@v2 code 0.bin")
    assert found[key(b"wheel")].used_by[0].endswith(".json w.whl")


def test_no_more_is_held_of_an_object_than_a_piece_whatever_size_is_claimed(store: MemoryStore) -> None:
    class Small(MemoryStore):
        def read_range(self, key: str, start: int, length: int) -> bytes:
            assert length <= RANGE_BYTES
            return super().read_range(key, start, length)

    key, claimed = layout.manifest("m", "v2"), 2**53 - 1
    store.replace(key, store.read(key).replace(b'"size_bytes":5', b'"size_bytes":%d' % claimed))
    (problem,) = look(Small("m", store._bucket), "v2").wrong
    assert (problem.fault, problem.message) == ("truncated", f"has 5 bytes instead of {claimed:,}")


def test_only_what_one_version_needs_is_looked_at(store: MemoryStore) -> None:
    damage(store)
    assert {problem.key for problem in look(store, "v1").wrong} == {key(b"of v1"), key(b"shared"), key(b"wheel")}
    assert look(store, "v1").versions == 1


@pytest.mark.parametrize("version", [None, "v1"])
def test_a_quick_look_reads_no_object_and_sees_sizes(store: MemoryStore, version: str | None) -> None:
    damage(store)
    counting = faulty(store)
    faults = {problem.key: problem.fault for problem in look(counting, version, quick=True).wrong}
    expected = {key(b"of v1"): "truncated", key(b"wheel"): "corrupt", key(b"of v2"): "missing"}
    if version is not None:
        del expected[key(b"of v2")]
    assert faults == expected
    assert not [one for verb, one in counting.operations if one.startswith(layout.OBJECTS) and verb != "stat"][1:]


def test_a_deleted_version_needs_nothing(store: MemoryStore) -> None:
    bury(store, "v2")
    store.delete(key(b"of v2"))
    assert not look(store).wrong


def test_a_manifest_is_held_to_the_history(store: MemoryStore) -> None:
    other = store.read(MANIFEST).replace(b'"author":null', b'"author":"eve"')
    store.replace(MANIFEST, other)
    (problem,) = look(store).wrong
    assert (problem.key, problem.fault, problem.used_by) == (MANIFEST, "corrupt", ("m@v1",))
    assert "recorded by generation 1 (promote)" in problem.message
    store.delete(MANIFEST)
    assert [problem.fault for problem in look(store).wrong] == ["missing"]


def test_one_that_cannot_be_read_hides_no_other(store: MemoryStore) -> None:
    store.replace("models/m/versions/v2/manifest.json", b"{")
    store.replace(key(b"of v1"), b"off")
    (bundle,) = keys(store, layout.ENVIRONMENTS)
    store.replace(bundle, b"{")
    store.create("models/m/history/00000002.yaml", b": [")
    found = {problem.key: problem.fault for problem in look(store).wrong}
    assert found == {
        "models/m/versions/v2/manifest.json": "unreadable",
        "models/m/versions/v1/manifest.json": "missing",  # of which no bundle has the wheel that it carries
        "models/m/history/00000002.yaml": "unreadable",
        bundle: "unreadable",
        key(b"of v1"): "truncated",
    }


def test_a_repair_brings_back_every_byte_under_a_lease(store: MemoryStore, backup: MemoryStore) -> None:
    before = objects(store)
    damage(store)
    store.replace(MANIFEST, b"{")
    (bundle,) = keys(store, layout.ENVIRONMENTS)
    store.delete(bundle)
    store.create(bundle, b"{")
    leases = len(keys(store, layout.PUSHES))
    report = look(store, source=backup)
    assert not report.wrong
    assert len([problem for problem in report.problems if problem.repaired]) == 6
    assert objects(store) == before
    assert not look(store).problems
    assert len(keys(store, layout.PUSHES)) == leases + 2


def test_a_manifest_comes_back_beside_a_sweep_that_has_not_seen_it() -> None:
    turned = Turned()
    store, backup = MemoryStore("m", MemoryBucket(turned)), MemoryStore("backup", MemoryBucket())
    put(store, b"one", b"two")
    put(store, b"three")
    promotions(store).promote("m", "v1")
    for stat in list(store.list("")):
        backup.create(stat.key, store.read(stat.key))
    store.delete(MANIFEST)
    turned.advance(3 * DAY)
    assert prune(store, clock=turned.client()).marked
    turned.advance(2 * DAY)
    settled, swept = threading.Event(), threading.Event()
    reports: list[VerifyReport] = []

    def wait_for_the_sweep(_seconds: float) -> None:
        settled.set()
        assert swept.wait(60)

    def repair() -> None:
        repairs = Repairs(store, backup, "me", Clock(monotonic=lambda: 0.0, sleep=wait_for_the_sweep))
        reports.append(verify(Scope(store, promotions(store)), repairs=repairs))
        settled.set()

    repairing = threading.Thread(target=repair)

    def once_it_has_read_the_manifests(verb: str, key: str) -> None:
        begun = any(each.endswith(".decision") for each in keys(store, layout.PRUNES))
        if (verb, key) == ("list", layout.ENVIRONMENTS) and begun and repairing.ident is None:
            repairing.start()
            assert settled.wait(60)

    (sweep,) = prune(faulty(store, before=once_it_has_read_the_manifests), clock=turned.client()).swept
    swept.set()
    repairing.join(60)
    assert sweep.deleted == 2
    assert not reports[0].wrong
    assert not look(store).problems


def test_what_the_other_repository_lacks_or_has_damaged_too_stays_wrong(
    store: MemoryStore, backup: MemoryStore
) -> None:
    damage(store)
    backup.delete(key(b"of v2"))
    backup.replace(key(b"shared"), b"xhared")
    report = look(store, source=backup)
    messages = {problem.key: problem.message for problem in report.wrong}
    assert messages.keys() == {key(b"of v2"), key(b"shared")}
    assert "memory://backup has it not either" in messages[key(b"of v2")]
    assert "memory://backup has other bytes too" in messages[key(b"shared")]
    assert store.read(key(b"shared")) == b"chared"


def test_a_manifest_that_no_history_speaks_of_is_not_taken_on_trust(store: MemoryStore, backup: MemoryStore) -> None:
    store.replace("models/m/versions/v2/manifest.json", b"{")
    assert [problem.repaired for problem in look(store, source=backup).problems] == [False]


def test_a_repository_says_so_of_a_version_by_its_reference(store: MemoryStore) -> None:
    repository = Repository(found(store))
    assert not repository.verify("m").wrong
    store.replace(MANIFEST, b"{")
    repository = Repository(found(store))
    assert [problem.key for problem in repository.verify("m").wrong] == [MANIFEST]
    assert [problem.key for problem in repository.verify("m@v1").wrong] == [MANIFEST]
    with pytest.raises(VersionNotFound):
        repository.verify("m@v7")
    bury(store, "v2")
    with pytest.raises(VersionDeleted):
        repository.verify("m@v2")


def test_a_list_shows_a_version_that_cannot_be_read_among_the_others(store: MemoryStore) -> None:
    store.replace(MANIFEST, b"{")
    one, other = Repository(found(store)).versions("m")
    assert "is not JSON" in (other.problem or one.problem or "")
    assert {(each.version, each.problem is None) for each in (one, other)} == {("v1", False), ("v2", True)}
