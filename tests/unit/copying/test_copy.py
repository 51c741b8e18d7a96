from __future__ import annotations

import json
import threading

import pytest

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.copying.repository_copy import CopyOptions, CopyReport, copy_versions
from modelrepo.copying.selection import Selection
from modelrepo.errors import (
    Corrupt,
    InvalidActiveFile,
    InvalidInput,
    ModelNotFound,
    VersionBlocked,
    VersionDeleted,
    VersionExists,
)
from modelrepo.names import parse_reference
from modelrepo.promotion import Rollout
from modelrepo.stores.faults import Fault, KillNow, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from tests.unit.copying.conftest import AddVersion, add_bundle, contents, place_of
from tests.unit.copying.test_pace import Turned


def copy(
    source: ObjectStore,
    target: ObjectStore,
    reference: str | None = None,
    options: CopyOptions | None = None,
    clock: Clock | None = None,
) -> CopyReport:
    def find(text: str) -> tuple[str, str]:
        named = parse_reference(text)
        assert named.version is not None
        return named.model, named.version

    return copy_versions(
        place_of(source),
        place_of(target),
        reference,
        options or CopyOptions(jobs=1),
        by="tester",
        find=find,
        clock=clock,
    )


class Streamed(MemoryStore):
    """A store whose server knows no other store."""

    def reaches(self, source: ObjectStore) -> bool:
        return False


@pytest.fixture
def distant(target: MemoryStore) -> MemoryStore:
    return Streamed("distant", target._bucket)


def test_everything_arrives_byte_for_byte_but_what_is_live(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    digests = [add_version(source, version) for version in ("v1", "v2")]
    add_version(source, "2026.1", model="other", environment="d" * 64)
    add_bundle(source)
    place_of(source).promotions.promote("tiny", "v1")
    report = copy(source, distant)
    assert [(str(each), each.outcome) for each in report.versions] == [
        ("other@2026.1", "copied"),
        ("tiny@v1", "copied"),
        ("tiny@v2", "copied"),
    ]
    assert [each.digest for each in report.versions[1:]] == digests
    without = (layout.PUSHES, "models/tiny/active.yaml", "models/tiny/history/")
    assert contents(distant) == contents(source, without=without)
    first, second = report.versions[1:]
    assert (first.bundles, second.bundles) == (1, 1)
    assert second.new_bytes == len("class Model: pass  # tiny v2\n")
    assert second.reused_bytes == len("first half, second halfa wheel")


def test_it_is_published_in_the_order_of_a_push(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    bundle = add_bundle(source)
    seen = faulty(distant)
    copy(source, seen)
    writes = [key for verb, key in seen.operations if verb == "create"]
    leases = [key for key in writes if key.startswith(layout.PUSHES)]
    held = {digest for key in leases for digest in json.loads(distant.read(key))["digests"]}
    assert {f"sha256:{stat.key[-64:]}" for stat in source.list(layout.OBJECTS)} | {f"sha256:{'e' * 64}"} == held
    assert writes[0] == leases[0]
    writes = [key for key in writes if key not in leases]
    manifest = writes.index(layout.manifest("tiny", "v1"))
    assert writes[manifest - 1] == bundle
    assert all(key.startswith(layout.OBJECTS) for key in writes[: manifest - 1])
    assert writes[manifest + 1 :] == [bundle, "models/tiny/versions/v1/model.yaml"]  # looked at once more


def test_run_again_nothing_moves(source: MemoryStore, target: MemoryStore, add_version: AddVersion) -> None:
    add_version(source)
    add_bundle(source)
    copy(source, target)
    before = contents(target, without=())
    seen = faulty(target)
    again = copy(source, seen)
    assert [(each.outcome, each.objects, each.new_bytes) for each in again.versions] == [("present", 0, 0)]
    assert contents(target, without=()) == before
    assert {verb for verb, _ in seen.operations} <= {"read", "stat", "list"}


def test_a_bundle_that_came_later_follows_its_version(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    copy(source, target)
    key = add_bundle(source, tag="cp312")
    again = copy(source, target)
    assert [(each.outcome, each.bundles, each.objects) for each in again.versions] == [("present", 1, 1)]
    assert target.read(key) == source.read(key)


def test_a_bundle_that_nobody_can_read_is_left_behind(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    source.create(layout.bundle("e" * 64, None, "cp311", "linux_x86_64", "a" * 64), b"no bundle")
    newer = add_bundle(source)
    assert [each.bundles for each in copy(source, target).versions] == [1]
    assert [stat.key for stat in target.list(layout.ENVIRONMENTS)] == [newer]


def test_another_version_under_the_same_id_is_refused_and_both_digests_are_named(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    ours, theirs = add_version(source, note="ours"), add_version(target, note="theirs")
    add_version(source, "v2")
    before = contents(target)
    report = copy(source, target)
    assert [each.outcome for each in report.versions] == ["failed", "copied"]
    (error,) = report.errors()
    assert isinstance(error, VersionExists)
    assert ours in str(error) and theirs in str(error)
    assert target.read(layout.manifest("tiny", "v1")) == before[layout.manifest("tiny", "v1")]


def test_one_that_is_published_under_the_id_meanwhile_wins(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, note="ours")

    def meanwhile(verb: str, key: str) -> None:
        if (verb, key) == ("create", layout.manifest("tiny", "v1")) and not list(target.list("models/")):
            add_version(target, note="theirs")

    (error,) = copy(source, faulty(target, before=meanwhile)).errors()
    assert isinstance(error, VersionExists)


def test_what_was_deleted_there_does_not_come_back(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    copy(source, target)
    target.create(layout.tombstone("tiny", "v1"), b"{}")
    before = contents(target, without=())
    (error,) = copy(source, target).errors()
    assert isinstance(error, VersionDeleted)
    assert "deleted there" in str(error)
    assert contents(target, without=()) == before


def test_what_was_deleted_in_the_source_is_not_copied(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    source.create(layout.tombstone("tiny", "v1"), b"{}")
    (error,) = copy(source, target, "tiny@v1").errors()
    assert isinstance(error, VersionDeleted)
    assert not list(target.list(""))


@pytest.mark.parametrize("how", ["server", "stream"])
@pytest.mark.parametrize("damage", ["other bytes", "shorter", "longer", "missing"])
def test_a_damaged_object_is_named_and_its_version_never_appears(
    source: MemoryStore,
    target: MemoryStore,
    distant: MemoryStore,
    add_version: AddVersion,
    damage: str,
    how: str,
) -> None:
    add_version(source)
    add_version(source, "v2", weights=(b"sound",))
    key = source_object(source, b"second half")
    if damage == "missing":
        source.delete(key)
    else:
        found = {"other bytes": b"SECOND half", "shorter": b"second", "longer": b"second half and more"}
        source.replace(key, found[damage])
    report = copy(source, target if how == "server" else distant)
    assert [each.outcome for each in report.versions] == ["failed", "copied"]
    (error,) = report.errors()
    assert isinstance(error, Corrupt)
    assert layout.digest_of(key) == error.digest
    assert source.url in str(error) and "tiny@v1" in str(error)
    assert [stat.key for stat in target.list("models/") if stat.key.endswith("manifest.json")] == [
        layout.manifest("tiny", "v2")
    ]
    assert key not in contents(target)


def test_no_room_is_made_for_a_size_that_only_a_manifest_claims(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, weights=(b"small",))
    key, claimed = layout.manifest("tiny", "v1"), 2**53 - 1
    source.replace(key, source.read(key).replace(b'"size_bytes":5', b'"size_bytes":%d' % claimed))
    (error,) = copy(source, distant).errors()
    assert isinstance(error, Corrupt)
    assert f"holds 5 bytes instead of {claimed}" in str(error)


def test_a_version_that_is_deleted_while_it_is_copied_is_said_to_be(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    key = source_object(source, b"second half")

    def meanwhile(verb: str, read: str) -> None:
        if verb.startswith("read") and read.startswith(layout.OBJECTS):
            source.create(layout.tombstone("tiny", "v1"), b"{}")
            source.delete(key)

    (error,) = copy(faulty(source, before=meanwhile), target).errors()
    assert isinstance(error, VersionDeleted)
    assert "meanwhile" in str(error)


def test_within_one_server_the_bytes_that_were_verified_are_taken_over(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    seen = faulty(target)
    copy(faulty(source), seen)
    verbs = [verb for verb, key in seen.operations if key.startswith(layout.OBJECTS) and verb != "stat"]
    assert verbs == ["take_over"] * 3
    assert contents(target) == contents(source)


def test_an_object_that_changes_after_it_was_verified_is_not_taken_over(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)

    def tamper(verb: str, key: str) -> None:
        if verb == "take_over":
            source.replace(key, b"swapped")

    (error,) = copy(source, faulty(target, before=tamper)).errors()
    assert isinstance(error, Corrupt)
    assert not list(target.list(layout.OBJECTS))


def test_what_the_server_does_not_take_over_is_sent(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)

    def touch(verb: str, key: str) -> None:
        if verb == "take_over":
            source.replace(key, source.read(key))  # the same bytes under another etag

    seen = faulty(target, before=touch)
    copy(source, seen)
    assert ("create", source_object(source, b"second half")) in seen.operations
    assert contents(target) == contents(source)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("side", ["source", "target", "target by stream"])
@pytest.mark.parametrize("how", ["fail", "kill"])
def test_whatever_breaks_off_nothing_torn_is_visible_and_run_again_it_is_whole(
    source: MemoryStore, add_version: AddVersion, moment: str, side: str, how: str
) -> None:
    """At every store operation of a copy of two versions, of which the second is made active."""
    add_version(source, config={"steps": 3})
    add_version(source, "v2")
    add_bundle(source)
    place_of(source).promotions.promote("tiny", "v2")
    kind = Streamed if side == "target by stream" else MemoryStore
    options = CopyOptions(with_active=True, jobs=1)
    at = 0
    while True:
        at += 1
        assert at < 500
        target = kind("to", MemoryBucket())
        fault = Fault(at, moment, how)  # type: ignore[arg-type]
        broken = faulty(source if side == "source" else target, fault)
        here, there = (broken, target) if side == "source" else (source, broken)
        try:
            copy(here, there, None, options, Turned().clock())
        except (KillNow, Exception):
            pass
        if len(broken.operations) < at:
            break
        _nothing_torn(target)
        report = copy(source, target, None, options)
        assert not report.errors()
        assert [each.version for each in report.active] == ["v2"]
        whole = {key: data for key, data in contents(source).items() if "/history/" not in key and "active" not in key}
        found = contents(target)
        missing = whole.keys() - found.keys()
        assert all(key.endswith("model.yaml") for key in missing), missing  # for people's eyes only
        assert all(found[key] == whole[key] for key in whole.keys() - missing)
        assert place_of(target).promotions.state("tiny").version == "v2"
    assert at > 20


def _nothing_torn(target: MemoryStore) -> None:
    place = place_of(target)
    for model in place.catalogue.models():
        for version in place.catalogue.versions(model):
            manifest, _ = place.catalogue.manifest(model, version)
            for digest in manifest.objects():
                target.stat(layout.object_(digest))
    for stat in target.list(layout.ENVIRONMENTS):
        for wheel in json.loads(target.read(stat.key))["wheels"]:
            target.stat(layout.object_(wheel["sha256"]))


def test_a_dry_run_counts_what_would_move_once_and_writes_nothing(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    add_version(source, "v2")
    add_bundle(source)
    planned = copy(source, target, None, CopyOptions(dry_run=True, with_active=True))
    assert not list(target.list(""))
    done = copy(source, target)
    assert [each.outcome for each in planned.versions] == ["planned", "planned"]
    assert [(each.objects, each.new_bytes) for each in planned.versions] == [
        (each.objects, each.new_bytes) for each in done.versions
    ]


def test_what_is_live_goes_along_where_it_is_asked_for(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    for store in (source, target):
        for version in ("v1", "v2"):
            add_version(store, version, config={"steps": 3, "mark": "!"})
    place_of(source).promotions.promote("tiny", "v2", config_set={"steps": 9}, rollout=Rollout("25%"), reason="good")
    place_of(target).promotions.promote("tiny", "v1", config_set={"mark": "?"})
    (active,) = copy(source, target, "tiny", CopyOptions(with_active=True, versions=Selection(last=1))).active
    assert (active.version, active.generation, active.unchanged) == ("v2", 2, False)
    state = place_of(target).promotions.state("tiny")
    assert (state.version, state.config, state.rollout) == ("v2", {"steps": 9}, Rollout("25%"))
    entry = place_of(target).promotions.history("tiny")[-1]
    assert entry.by == "tester"
    assert entry.reason == "copied from memory://from, where generation 1 made it active"
    (again,) = copy(source, target, "tiny", CopyOptions(with_active=True)).active
    assert (again.generation, again.unchanged) == (2, True)


def test_the_active_version_is_taken_along_to_be_made_active(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    for version in ("v1", "v2", "v3"):
        add_version(source, version)
    place_of(source).promotions.promote("tiny", "v1")
    report = copy(source, target, "tiny@v2", CopyOptions(with_active=True))
    assert [each.version for each in report.versions] == ["v2", "v1"]
    report = copy(source, target, None, CopyOptions(with_active=True, versions=Selection(last=1)))
    assert [(each.version, each.outcome) for each in report.versions] == [("v1", "present"), ("v3", "copied")]
    assert place_of(target).promotions.state("tiny").version == "v1"


def test_a_version_that_is_blocked_there_is_not_made_active(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    place_of(source).promotions.promote("tiny", "v1")
    copy(source, target)
    place_of(target).promotions.block("tiny", "v1")
    (error,) = copy(source, target, None, CopyOptions(with_active=True)).errors()
    assert isinstance(error, VersionBlocked)


def test_an_active_file_that_is_none_keeps_only_its_own_model_from_being_active(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, model="good")
    add_version(source, model="bad")
    place_of(source).promotions.promote("good", "v1")
    source.create(layout.active_file("bad"), b"][")
    report = copy(source, target, None, CopyOptions(with_active=True))
    assert [each.outcome for each in report.versions] == ["copied", "copied"]
    (error,) = report.errors()
    assert isinstance(error, InvalidActiveFile)
    assert place_of(target).promotions.state("good").version == "v1"


def test_a_choice_of_versions_is_one_of_a_model(
    source: MemoryStore, target: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source)
    with pytest.raises(InvalidInput, match="tiny@v1"):
        copy(source, target, "tiny@v1", CopyOptions(versions=Selection(last=1)))
    with pytest.raises(ModelNotFound):
        copy(source, target, "other")
    with pytest.raises(InvalidInput, match="0 jobs"):
        copy(source, target, "tiny", CopyOptions(jobs=0))


def test_a_limit_of_the_rate_holds_over_the_whole_copy(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, weights=tuple(bytes([number]) * 1000 for number in range(20)))
    turned = Turned()
    begun = turned.seconds
    copy(source, distant, None, CopyOptions(limit_rate=1000, jobs=1), turned.clock())
    assert turned.seconds - begun == pytest.approx(20.0, abs=1.1)


def test_an_interrupted_copy_does_not_wait_for_the_turns_of_its_threads(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, weights=(b"one", b"two", b"three"))
    waiting = threading.Event()

    def sleep(_seconds: float) -> None:
        waiting.set()  # and no time goes by: such a turn never comes

    def interrupt(verb: str, key: str) -> None:
        if verb == "create" and key.startswith(layout.OBJECTS):
            assert waiting.wait(30)
            raise KeyboardInterrupt

    clock = Clock(now=lambda: 0.0, monotonic=lambda: 0.0, sleep=sleep)
    with pytest.raises(KeyboardInterrupt):
        copy(source, faulty(distant, before=interrupt), None, CopyOptions(limit_rate=1, jobs=2), clock)


def test_objects_are_sent_in_the_order_of_the_manifest(
    source: MemoryStore, distant: MemoryStore, add_version: AddVersion
) -> None:
    add_version(source, weights=(b"z", b"y", b"x"))
    seen = faulty(source)
    copy(seen, distant)
    read = [
        source.read(key) for verb, key in seen.operations if verb.startswith("read") and key.startswith(layout.OBJECTS)
    ]
    assert read[1:] == [b"z", b"y", b"x"]


def source_object(source: MemoryStore, data: bytes) -> str:
    return next(stat.key for stat in source.list(layout.OBJECTS) if source.read(stat.key) == data)
