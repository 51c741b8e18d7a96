"""prune marks, waits, sweeps, tidies up: one step at a time, by the store's own clock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.errors import Corrupt, InvalidInput, NewerFormat, Unreachable
from modelrepo.maintenance import marking
from modelrepo.maintenance.deletion import plan_deletion
from modelrepo.maintenance.prune import PruneReport, prune
from modelrepo.maintenance.sweeping import Sweep
from modelrepo.publication.leases import CANCEL, REQUEST_TIMEOUT_S, SWEEP_LIMIT_S, PendingPrunes, PushLease
from modelrepo.stores.faults import Fault, KillNow, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle
from tests.unit.maintenance.stocked import DAY, HOUR, Turned, bury, keys, objects, put, record


@pytest.fixture
def time() -> Turned:
    return Turned()


@pytest.fixture
def store(time: Turned) -> MemoryStore:
    return MemoryStore("m", MemoryBucket(clock=time))


def run(store: ObjectStore, time: Turned, **options: bool | float) -> PruneReport:
    return prune(store, clock=time.client(), **options)  # type: ignore[arg-type]


@pytest.fixture
def garbage(store: MemoryStore, time: Turned) -> MemoryStore:
    """A store with v1, which is deleted, and v2; three days later."""
    put(store, b"shared", b"only in v1")
    put(store, b"shared", b"only in v2")
    bury(store, "v1")
    time.advance(3 * DAY)
    return store


def test_garbage_is_marked_and_a_day_later_swept(garbage: MemoryStore, time: Turned) -> None:
    report = run(garbage, time)
    (mark,) = report.marked
    assert (mark.objects, mark.size_bytes, report.marked_bytes) == (1, 10, 10)
    assert report.kept.needed == 2
    marked = json.loads(garbage.read(layout.prune(mark.id)))
    assert marked["digests"] == [f"sha256:{sha256(b'only in v1')}"]
    assert {"format", "id", "at", "by", "digests", "sizes", "environments"} == marked.keys()

    time.advance(DAY - 60)
    report = run(garbage, time)
    assert not report.swept
    assert [round(waiting.due_in_s) for waiting in report.waiting] == [60]
    assert not report.marked  # once is enough
    assert len(objects(garbage)) == 3

    time.advance(60)
    report = run(garbage, time)
    assert report.swept == [Sweep(mark.id, "swept", deleted=1, freed_bytes=10)]
    assert objects(garbage) == {b"shared", b"only in v2"}
    assert garbage.read(layout.prune_done(mark.id)) == b"done"

    time.advance(DAY)
    assert run(garbage, time).tidied.prunes == 1
    assert not keys(garbage, layout.PRUNES)
    assert not keys(garbage, layout.PROBES)


def test_what_is_younger_than_the_grace_is_left_alone(store: MemoryStore, time: Turned) -> None:
    store.create(layout.object_(sha256(b"stray")), b"stray")
    time.advance(DAY - 1)
    report = run(store, time)
    assert not report.marked
    assert report.kept.young == 1
    time.advance(1)
    assert [mark.objects for mark in run(store, time).marked] == [1]


def test_a_grace_below_an_hour_is_refused(garbage: MemoryStore, time: Turned) -> None:
    with pytest.raises(InvalidInput, match="too short"):
        run(garbage, time, grace_s=HOUR - 1)
    run(garbage, time, grace_s=HOUR)
    time.advance(HOUR)
    assert run(garbage, time, grace_s=HOUR).freed_bytes == 10


def test_a_dry_run_changes_nothing_and_says_what_would_be(garbage: MemoryStore, time: Turned) -> None:
    before = keys(garbage, "")
    assert [mark.objects for mark in run(garbage, time, dry_run=True).marked] == [1]
    assert keys(garbage, "") == before
    run(garbage, time)
    time.advance(DAY)
    before = keys(garbage, "")
    report = run(garbage, time, dry_run=True)
    assert [(sweep.deleted, sweep.freed_bytes) for sweep in report.swept] == [(1, 10)]
    assert not report.marked
    assert keys(garbage, "") == before


def test_a_deletion_without_its_tombstone_keeps_every_byte(store: MemoryStore, time: Turned) -> None:
    put(store, b"one")
    store.create("models/m/history/00000001.yaml", b"kind: delete\n")
    time.advance(3 * DAY)
    assert not run(store, time).marked


def test_a_lease_that_counts_keeps_what_it_names(garbage: MemoryStore, time: Turned) -> None:
    digest = sha256(b"only in v1")
    run(garbage, time)
    time.advance(DAY - 1)
    PushLease(garbage, model="m", by="me", digests=[digest], clock=time.client()).take()
    time.advance(1)
    report = run(garbage, time)
    assert [(sweep.deleted, sweep.kept) for sweep in report.swept] == [(0, 1)]
    assert report.kept.leased == 1
    assert not report.marked
    time.advance(2 * DAY - 2)
    assert run(garbage, time).kept.leased == 1
    time.advance(2)
    report = run(garbage, time)
    assert report.tidied.leases == 1
    assert report.kept.leased == 0
    assert [mark.objects for mark in report.marked] == [1]


def test_a_lease_counts_as_long_as_its_newest_file(garbage: MemoryStore, time: Turned) -> None:
    lease = PushLease(garbage, model="m", by="me", digests=[sha256(b"only in v1")], clock=time.client())
    lease.take()
    time.advance(1.5 * DAY)
    lease.take_more([sha256(b"something else")])
    time.advance(DAY)
    assert run(garbage, time).kept.leased == 1


def test_what_a_push_called_off_is_marked_anew(garbage: MemoryStore, time: Turned) -> None:
    (mark,) = run(garbage, time).marked
    garbage.create(layout.prune_decision(mark.id), CANCEL)
    time.advance(DAY)
    report = run(garbage, time)
    assert not report.swept
    assert [each.objects for each in report.marked] == [1]
    assert len(objects(garbage)) == 3


def killed_in_its_sweep(store: ObjectStore, time: Turned) -> str:
    """Mark, and let the sweep die at its first delete; returns the prune's id."""
    (mark,) = run(store, time).marked
    time.advance(DAY)
    second = Fault(2, "before", "kill", verbs=frozenset({"delete"}))  # the first is that of what tells the time
    with pytest.raises(KillNow):
        run(faulty(store, second), time)
    assert store.read(layout.prune_decision(mark.id)).split()[0] == b"sweep"
    return mark.id


def test_a_push_waits_for_a_sweep_and_a_dead_one_is_closed_by_the_next(garbage: MemoryStore, time: Turned) -> None:
    prune_id = killed_in_its_sweep(garbage, time)
    report = run(garbage, time)
    assert [waiting.sweeping for waiting in report.waiting] == [True]
    assert not report.marked
    began = time.seconds
    assert PendingPrunes(garbage, time.client()).release([sha256(b"only in v1")])
    assert 0 <= time.seconds - began - SWEEP_LIMIT_S - REQUEST_TIMEOUT_S < 5
    time.advance(REQUEST_TIMEOUT_S + 1)
    report = run(garbage, time)
    assert report.abandoned == [prune_id]
    assert [each.objects for each in report.marked] == [1]
    assert PendingPrunes(garbage, time.client()).look().keys() == {report.marked[0].id}


def test_of_two_sweepers_at_once_one_sweeps(garbage: MemoryStore, time: Turned) -> None:
    run(garbage, time)
    time.advance(DAY)
    others: list[PruneReport] = []

    def overtake(verb: str, key: str) -> None:
        if key.endswith(".decision") and not others:
            others.append(run(garbage, time))

    report = run(faulty(garbage, before=overtake), time)
    assert [sweep.ending for sweep in others[0].swept] == ["swept"]
    assert [sweep.ending for sweep in report.swept] == ["another's"]


def test_a_sweep_of_what_was_tidied_away_meanwhile_is_none(garbage: MemoryStore, time: Turned) -> None:
    (mark,) = run(garbage, time).marked
    time.advance(DAY)

    def tidy_away(verb: str, key: str) -> None:
        if key.endswith(".decision") and verb == "create":
            garbage.delete(layout.prune(mark.id))

    report = run(faulty(garbage, before=tidy_away), time)
    assert [sweep.ending for sweep in report.swept] == ["gone"]
    assert layout.prune_decision(mark.id) not in keys(garbage, layout.PRUNES)
    assert len(objects(garbage)) == 3


@pytest.mark.parametrize("which", ["models/m/versions/v2/manifest.json", "pushes/abc.json", "team"])
def test_nothing_goes_while_something_that_may_name_it_cannot_be_read(
    garbage: MemoryStore, time: Turned, which: str
) -> None:
    run(garbage, time)
    time.advance(DAY)
    if which == "team":
        garbage.create("models/team/m/versions/v1/manifest.json", b'{"format": 9}')
        expected: type[Exception] = NewerFormat
    else:
        garbage.replace(which, b"{")
        expected = Corrupt
    with pytest.raises(expected, match=r"manifest|pushes/abc"):
        run(garbage, time)
    assert len(objects(garbage)) == 3
    assert not [key for key in keys(garbage, layout.PRUNES) if key.endswith(".decision")]


def test_what_becomes_unreadable_after_the_decision_ends_the_sweep_at_once(garbage: MemoryStore, time: Turned) -> None:
    (mark,) = run(garbage, time).marked
    time.advance(DAY)

    def tear(verb: str, key: str) -> None:
        if key.endswith(".decision") and verb == "stat":
            garbage.replace(layout.manifest("m", "v2"), b"{")

    with pytest.raises(Corrupt):
        run(faulty(garbage, before=tear), time)
    assert len(objects(garbage)) == 3
    assert layout.prune_done(mark.id) in keys(garbage, layout.PRUNES)  # nothing was sent, so no push need wait


def test_a_delete_without_an_answer_leaves_the_sweep_open(garbage: MemoryStore, time: Turned) -> None:
    (mark,) = run(garbage, time).marked
    time.advance(DAY)
    with pytest.raises(Unreachable):
        run(faulty(garbage, Fault(2, "after", verbs=frozenset({"delete"}))), time)
    assert layout.prune_done(mark.id) not in keys(garbage, layout.PRUNES)


def test_a_sweep_stops_ten_minutes_after_its_decision(store: MemoryStore, time: Turned) -> None:
    for number in range(40):
        store.create(layout.object_(sha256(b"%d" % number)), b"%d" % number)
    time.advance(DAY)
    run(store, time)
    time.advance(DAY)

    def be_slow(verb: str, key: str) -> None:
        if verb == "delete" and key.startswith(layout.OBJECTS):
            time.advance(60)

    (sweep,) = run(faulty(store, before=be_slow), time).swept
    assert 10 <= sweep.deleted <= 26  # sixteen may have been on their way
    assert sweep.left == 40 - sweep.deleted == len(objects(store))
    time.advance(DAY)
    assert run(store, time).freed_bytes > 0


def test_many_objects_make_many_records(store: MemoryStore, time: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "MOST_IN_A_RECORD", 3)
    for number in range(7):
        store.create(layout.object_(sha256(b"%d" % number)), b"%d" % number)
    time.advance(DAY)
    assert [mark.objects for mark in run(store, time).marked] == [3, 3, 1]
    time.advance(DAY)
    assert sum(sweep.deleted for sweep in run(store, time).swept) == 7


def test_bundles_go_with_the_last_version_of_their_environment(store: MemoryStore, time: Turned) -> None:
    put(store, b"one", wheels=(b"torch",), environment=b"old")
    put(store, b"two", wheels=(b"numpy",), environment=b"new")
    bury(store, "v1")
    time.advance(3 * DAY)
    plan = plan_deletion(store, "m", "v2")
    assert (plan.objects, plan.freed_bytes, plan.bundles) == (2, 8, 1)
    (mark,) = run(store, time).marked
    assert (mark.objects, mark.environments) == (2, 1)
    time.advance(DAY)
    report = run(store, time)
    assert [(sweep.deleted, sweep.left) for sweep in report.swept] == [(3, 0)]
    assert objects(store) == {b"two", b"numpy"}
    assert {layout.environment_of(key) for key in keys(store, layout.ENVIRONMENTS)} == {sha256(b"new")}


def test_an_environment_that_is_used_again_keeps_its_bundles_and_their_objects(
    store: MemoryStore, time: Turned
) -> None:
    put(store, b"one", wheels=(b"torch",))
    bury(store, "v1")
    time.advance(3 * DAY)
    run(store, time)
    put(store, b"two")  # of the same environment, from a box that carries nothing
    time.advance(DAY)
    report = run(store, time)
    assert not report.swept  # the push called it off
    time.advance(3 * DAY)
    run(store, time)
    time.advance(DAY)
    run(store, time)
    assert objects(store) == {b"two", b"torch"}


def test_a_bundle_younger_than_the_grace_keeps_its_environment(store: MemoryStore, time: Turned) -> None:
    put(store, b"one", wheels=(b"torch",))
    bury(store, "v1")
    time.advance(3 * DAY)
    bundle = Bundle(sha256(b"e"), "cuda", "cp312", "linux", (record(b"torch", "t.whl"),))
    key, data = bundle.document()
    store.create(key, data)
    (mark,) = run(store, time).marked
    assert (mark.objects, mark.environments) == (1, 0)
    time.advance(DAY)
    run(store, time)
    assert objects(store) == {b"torch"}


def test_half_written_files_of_dead_writers_go(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "repository")
    store.create("models/m/active.yaml", b"version: v1\n")
    old, young = (store.root / "models" / "m" / f".tmp-{name}" for name in ("0ld", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    long_ago = young.stat().st_mtime - 2 * DAY
    os.utime(old, (long_ago, long_ago))
    assert prune(store, dry_run=True).tidied.temporaries == 1
    assert old.exists()
    report = prune(store, grace_s=HOUR)
    assert (report.tidied.temporaries, report.tidied.temporary_bytes) == (1, 4)
    assert not old.exists()
    assert young.exists()


def test_killed_anywhere_it_goes_on_when_it_is_run_again(time: Turned) -> None:
    def prepared() -> MemoryStore:
        store = MemoryStore("m", MemoryBucket(clock=time))
        put(store, b"shared", b"only in v1", wheels=(b"torch",), environment=b"old")
        put(store, b"shared", b"only in v2", wheels=(b"numpy",), environment=b"new")
        bury(store, "v1")
        time.advance(3 * DAY)
        return store

    steps: list[Callable[[ObjectStore], object]] = [lambda store: run(store, time)] * 3
    counting = faulty(prepared())
    sizes = []
    for step in steps:
        before = len(counting.operations)
        step(counting)
        sizes.append(len(counting.operations) - before)
        time.advance(DAY)
    for killed, size in enumerate(sizes):
        for at in range(1, size + 1):
            store = prepared()
            for number, step in enumerate(steps):
                if number == killed:
                    with pytest.raises(KillNow):
                        step(faulty(store, Fault(at, "after", "kill")))
                    time.advance(HOUR)
                step(store)
                time.advance(DAY)
            for _ in range(4):
                run(store, time)
                time.advance(2 * DAY)
            assert objects(store) == {b"shared", b"only in v2", b"numpy"}
            left = keys(store, "")
            assert not [key for key in left if key.startswith((layout.PUSHES, layout.PROBES, layout.PRUNES))], left
