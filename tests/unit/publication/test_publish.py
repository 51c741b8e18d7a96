from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.errors import (
    Corrupt,
    InvalidInput,
    NoSpace,
    ObjectChanged,
    Unreachable,
    VersionExists,
)
from modelrepo.publication import leases
from modelrepo.publication.delivery import Delivery, missing_objects
from modelrepo.publication.publish import Publication, publish
from modelrepo.stores.faults import Fault, KillNow, faulty
from modelrepo.stores.memory import MemoryStore
from modelrepo.stores.port import ObjectStat
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import Manifest

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]
SPEC = "checkpoints: {w: w}\n"


class Turned:
    """A clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.on_sleep()

    def clock(self) -> Clock:
        return Clock(now=lambda: 1_700_000_000.0 + self.seconds, monotonic=lambda: self.seconds, sleep=self.sleep)


def keys(store: MemoryStore, prefix: str = "") -> list[str]:
    return [stat.key for stat in store.list(prefix)]


def condemn(store: MemoryStore, *digests: str, prune_id: str = "p1") -> None:
    record = {"format": 1, "id": prune_id, "digests": [f"sha256:{digest}" for digest in digests]}
    store.create(layout.prune(prune_id), json.dumps(record).encode())


def test_publication_follows_the_written_order(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    seen = faulty(store)
    done = publish(seen, make_draft(make_folder(spec=SPEC, files={"w/a.bin": "weights"})))
    assert done.manifest.version == "v1"
    writes = [key for verb, key in seen.operations if verb == "create"]
    assert writes[0].startswith(layout.PUSHES)
    assert [verb for verb, key in seen.operations][1] == "list"
    assert seen.operations[1] == ("list", layout.PRUNES)
    manifest = writes.index("models/tiny/versions/v1/manifest.json")
    assert all(key.startswith(layout.OBJECTS) for key in writes[1:manifest])
    assert writes[manifest + 1 :] == ["models/tiny/versions/v1/model.yaml"]
    assert Manifest.from_bytes(store.read(writes[manifest])) == done.manifest
    lease = json.loads(store.read(writes[0]))
    named = {*done.manifest.objects(), done.manifest.environment.digest}
    assert {f"sha256:{digest}" for digest in named} == set(lease["digests"])
    assert {"format", "id", "model", "at", "by", "digests"} == lease.keys()
    assert keys(store, layout.PUSHES) == [writes[0]]


def test_what_is_there_is_not_sent_again(store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights", "w/b.bin": "weights"})
    first = publish(store, make_draft(folder))
    (folder / "model.py").write_text("class Model: ...\n")
    second = publish(store, make_draft(folder))
    assert second.manifest.version == "v2"
    assert second.new_bytes == len("class Model: ...\n")
    assert second.reused_bytes + second.new_bytes == sum(second.manifest.objects().values())
    assert first.digest != second.digest


def test_a_given_id_is_used_once(store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft) -> None:
    folder = make_folder()
    publish(store, make_draft(folder), version="2026.1")
    before = keys(store)
    with pytest.raises(VersionExists, match=r"tiny@2026\.1"):
        publish(store, make_draft(folder), version="2026.1")
    assert keys(store) == before


def test_the_id_of_a_deleted_version_stays_taken(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    publish(store, make_draft(make_folder()))
    store.create(layout.tombstone("tiny", "v1"), b"{}")
    store.delete(layout.manifest("tiny", "v1"))  # which nobody should do
    with pytest.raises(VersionExists):
        publish(store, make_draft(make_folder()), version="v1")
    assert publish(store, make_draft(make_folder())).manifest.version == "v2"


def test_racing_pushes_get_distinct_versions(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder()
    drafts = [make_draft(folder) for _ in range(8)]
    start, won = threading.Barrier(len(drafts)), []

    def push(publication: Publication) -> None:
        start.wait()
        won.append(publish(store, publication).manifest.version)

    threads = [threading.Thread(target=push, args=(publication,)) for publication in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [f"v{number}" for number in range(1, 9)]


def test_a_push_killed_at_any_operation_leaves_nothing_torn_and_the_next_one_resumes(
    make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "a" * 100, "w/b.bin": "b" * 100})
    counted = faulty(MemoryStore("counted"))
    publish(counted, make_draft(folder))
    visible_after = 0
    for at in range(1, len(counted.operations) + 1):
        for moment in ("before", "after"):
            inner = MemoryStore(f"killed-{at}-{moment}")
            with contextlib.suppress(KillNow):  # after an operation that found nothing there is no kill
                publish(faulty(inner, Fault(at, moment, how="kill")), make_draft(folder))
            catalogue = Catalogue(inner)
            for version in catalogue.versions("tiny"):
                manifest, _ = catalogue.manifest("tiny", version)
                assert not missing_objects(inner, manifest.objects())
                visible_after += 1
            sent = sum(stat.size_bytes for stat in inner.list(layout.OBJECTS))
            again = publish(inner, make_draft(folder))
            assert again.reused_bytes == sent
    assert visible_after > 0


def test_a_push_whose_acknowledgement_is_lost_is_published_once(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder()
    counted = faulty(MemoryStore("acknowledged"))
    publish(counted, make_draft(folder))
    creations = [key for verb, key in counted.operations if verb == "create"]
    at = creations.index("models/tiny/versions/v1/manifest.json") + 1
    lost = faulty(store, Fault(at, "after", verbs=frozenset({"create"})))
    done = publish(lost, make_draft(folder), clock=Turned().clock())
    assert Catalogue(store).versions("tiny") == [done.manifest.version] == ["v1"]


def test_an_unreachable_store_is_an_error_and_nothing_is_visible(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    with pytest.raises(Unreachable):
        publish(faulty(store, Fault(4)), make_draft(make_folder()))
    assert Catalogue(store).versions("tiny") == []


def test_a_skipped_object_that_vanishes_is_sent_after_the_manifest(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights"})
    first = publish(store, make_draft(folder))
    victim = layout.object_(first.manifest.checkpoints["w"].files[0].sha256)

    class Sweeping(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if key.endswith("/v2/manifest.json"):
                self.delete(victim)

    second = publish(Sweeping("versions", store._bucket), make_draft(folder))
    assert second.manifest.version == "v2"
    assert store.read(victim) == b"weights"
    assert second.new_bytes == len(b"weights")


def test_a_condemned_object_is_saved_by_calling_the_prune_off(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights"})
    first = publish(store, make_draft(folder))
    condemn(store, first.manifest.checkpoints["w"].files[0].sha256)
    condemn(store, "0" * 64, prune_id="p2")
    second = publish(store, make_draft(folder))
    assert store.read(layout.prune_decision("p1")) == b"cancel"
    assert layout.prune_decision("p2") not in keys(store)
    assert second.new_bytes == 0
    third = publish(store, make_draft(folder))  # p1 is called off, and says so
    assert third.new_bytes == 0


def test_where_the_sweep_has_won_the_push_waits_for_it_and_sends_again(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights"})
    first = publish(store, make_draft(folder))
    digest = first.manifest.checkpoints["w"].files[0].sha256
    condemn(store, digest)
    store.create(layout.prune_decision("p1"), b"sweep")
    turned = Turned()

    def sweep() -> None:
        if turned.seconds > 30:
            store.delete(layout.object_(digest))
            store.create(layout.prune_done("p1"), b"")

    turned.on_sleep = sweep
    second = publish(store, make_draft(folder), clock=turned.clock())
    assert 30 < turned.seconds < 60
    assert second.new_bytes == len(b"weights")
    assert store.read(layout.object_(digest)) == b"weights"


def test_a_sweeper_that_died_is_waited_for_no_longer_than_it_may_run(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights"})
    first = publish(store, make_draft(folder))
    condemn(store, first.manifest.checkpoints["w"].files[0].sha256)
    store.create(layout.prune_decision("p1"), b"sweep")
    turned = Turned()
    publish(store, make_draft(folder), clock=turned.clock())
    limit = leases.SWEEP_LIMIT_S + leases.REQUEST_TIMEOUT_S
    assert limit <= turned.seconds <= limit + leases.SWEEP_POLL_S


def test_a_push_in_many_batches_reads_a_prune_once_and_waits_once_for_a_sweeper_that_died(store: MemoryStore) -> None:
    batches = [f"batch {number}".encode() for number in range(4)]
    for data in batches:
        store.create(layout.object_(sha256(data)), data)
    condemn(store, *map(sha256, batches))
    condemn(store, "0" * 64, prune_id="p2")
    store.create(layout.prune_decision("p1"), b"sweep")
    turned, counted = Turned(), faulty(store)
    with Delivery(counted, model="tiny", by="me", clock=turned.clock()) as delivery:
        for data in batches:
            delivery.bring({sha256(data): len(data)}, {})
        delivery.finish({}, lambda: "tiny@v1")
    assert turned.seconds <= leases.SWEEP_LIMIT_S + leases.REQUEST_TIMEOUT_S + leases.SWEEP_POLL_S
    assert Counter(counted.operations)["read", layout.prune("p2")] == 1


def test_a_long_push_renews_its_lease(store: MemoryStore) -> None:
    turned = Turned()
    lease = leases.PushLease(store, model="tiny", by="me", digests=["0" * 64], clock=turned.clock())
    lease.take()
    lease.renew_if_due()
    assert len(keys(store, layout.PUSHES)) == 1
    for _ in range(3):
        turned.sleep(leases.GRACE_S / 2 + 1)
        lease.renew_if_due()
    assert keys(store, layout.PUSHES) == sorted(layout.push_lease(lease.id, number) for number in range(4))


def test_a_file_that_changes_under_a_push_is_not_published(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder()
    publication = make_draft(folder)
    (folder / "model.py").write_text("class Other: pass\n")
    with pytest.raises(InvalidInput, match="changed while"):
        publish(store, publication)
    assert Catalogue(store).versions("tiny") == []


def test_a_damaged_object_in_the_repository_is_named(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    publication = make_draft(make_folder())
    digest = publication.manifest.code[0].sha256
    store.create(layout.object_(digest), b"")
    with pytest.raises(Corrupt, match=digest):
        publish(store, publication)
    assert Catalogue(store).versions("tiny") == []


def test_bytes_that_only_the_repository_has_must_be_there(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    older = publish(store, make_draft(make_folder(at="old", spec=SPEC, files={"w/a.bin": "weights"})))
    folder = make_folder(spec='checkpoints: {x: "modelrepo:tiny@v1/w"}\n')
    newer = publish(store, make_draft(folder, lookup=lambda reference: older.manifest))
    assert newer.manifest.checkpoints["x"].files == older.manifest.checkpoints["w"].files
    assert newer.new_bytes == (folder / "model.yaml").stat().st_size

    store.delete(layout.object_(older.manifest.checkpoints["w"].files[0].sha256))
    with pytest.raises(Corrupt, match="not on this box"):
        publish(store, make_draft(folder, lookup=lambda reference: older.manifest))
    assert Catalogue(store).versions("tiny") == ["v1", "v2"]


def test_an_unreadable_prune_record_stops_the_push(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    store.create(layout.prune("p1"), b"?")
    with pytest.raises(Corrupt, match="prunes/p1"):
        publish(store, make_draft(make_folder()))


def test_a_push_that_slept_past_its_lease_looks_at_everything_again(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft
) -> None:
    folder = make_folder(spec=SPEC, files={"w/a.bin": "weights", "w/b.bin": "other"})
    publication = make_draft(folder)
    digests = [file.sha256 for file in publication.manifest.checkpoints["w"].files]
    slept = 0.0

    def sleep_on_the_way(verb: str, key: str) -> None:
        nonlocal slept
        if slept or verb != "create" or key != layout.object_(digests[1]):
            return
        slept = 3 * leases.GRACE_S  # and a prune found no lease in force
        store.delete(layout.object_(digests[0]))

    clock = Clock(now=lambda: slept, monotonic=lambda: 0.0)
    done = publish(faulty(store, before=sleep_on_the_way), publication, clock=clock)
    assert slept
    assert all(layout.object_(digest) in keys(store) for digest in done.manifest.objects())


@pytest.mark.parametrize("faults", [1, 99])
def test_a_store_that_fails_after_the_manifest_is_asked_again_and_then_said_to_have_it(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft, faults: int
) -> None:
    publish(store, make_draft(make_folder()))

    class Failing(MemoryStore):
        def stat(self, key: str) -> ObjectStat:
            nonlocal faults
            if layout.manifest("tiny", "v2") in keys(self) and faults:
                faults -= 1
                raise Unreachable("no")
            return super().stat(key)

    turned, failing = Turned(), Failing("versions", store._bucket)
    if faults == 1:
        assert publish(failing, make_draft(make_folder()), clock=turned.clock()).manifest.version == "v2"
    else:
        with pytest.raises(Unreachable, match="tiny@v2 is published, but"):
            publish(failing, make_draft(make_folder()), clock=turned.clock())
    assert Catalogue(store).versions("tiny") == ["v1", "v2"]


@pytest.mark.parametrize("error", [Unreachable("no"), ObjectChanged("no"), NoSpace(28, "no")])
def test_a_copy_that_fails_is_no_failure_of_the_push(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft, error: Exception
) -> None:
    class NoCopies(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            if key.endswith(".yaml"):
                raise error
            super().create(key, data)

    publish(NoCopies("versions", store._bucket), make_draft(make_folder()))
    assert Catalogue(store).versions("tiny") == ["v1"]
