"""promote, rollback, block and edit keep the protocol, whoever else writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelrepo.canonical import sha256
from modelrepo.errors import (
    Corrupt,
    GenerationChanged,
    InvalidActiveFile,
    InvalidInput,
    InvalidName,
    ModelNotFound,
    NoSpace,
    Unreachable,
    VersionBlocked,
    VersionDeleted,
    VersionNotFound,
)
from modelrepo.promotion import HistoryEntry, Kind, Promotions
from modelrepo.promotion.active_file import Rollout, parse
from modelrepo.promotion.history import SIDE_BY_SIDE
from modelrepo.stores.faults import WRITES, Fault, KillNow, Verb, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.version_table import VersionTable

ACTIVE = "models/m/active.yaml"
VERSIONS = ["v1", "v2", "v3", "v4", "v5"]


@pytest.fixture(params=["memory", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore("m", MemoryBucket()) if request.param == "memory" else FilesystemStore(tmp_path / "repository")


@pytest.fixture
def table() -> VersionTable:
    return VersionTable({"m": list(VERSIONS)})


@pytest.fixture
def promotions(store: ObjectStore, table: VersionTable) -> Promotions:
    return Promotions(
        store, table, clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), by="me@here", sleep=lambda _: None
    )


def another(store: ObjectStore, table: VersionTable) -> Promotions:
    return Promotions(store, table, by="you@there")


def kinds(promotions: Promotions) -> list[str]:
    return [f"{entry.kind} {entry.version}" for entry in promotions.history("m")]


def hand_edit(store: ObjectStore, old: str, new: str) -> bytes:
    text = store.read(ACTIVE).replace(old.encode(), new.encode())
    store.replace(ACTIVE, text)
    return text


def test_a_promotion_is_an_entry_and_a_file(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    first = promotions.promote("m", "v1")
    before = store.read(ACTIVE)
    entry = promotions.promote("m", "v2", config_set={"steps": 4}, reason="better", rollout="2")
    assert (entry.generation, entry.kind, entry.version, entry.digest) == (2, "promote", "v2", table.digest("m", "v2"))
    assert (entry.by, entry.at, entry.reason) == ("me@here", "2026-01-02T03:04:05Z", "better")
    assert entry.change != first.change
    assert (first.base_sha256, entry.base_sha256) == (None, sha256(before))
    assert entry.active_sha256 == sha256(store.read(ACTIVE))
    assert HistoryEntry.from_bytes(store.read("models/m/history/00000002.yaml"), "x") == entry
    file = parse(store.read(ACTIVE))
    assert (file.version, file.digest, file.generation) == ("v2", table.digest("m", "v2"), 2)
    assert (file.config, file.rollout.max_unavailable) == ({"steps": 4}, "2")
    assert {stat.key for stat in store.list("")} == {
        ACTIVE, "models/m/history/00000001.yaml", "models/m/history/00000002.yaml",
    }  # fmt: skip


def test_a_reason_that_is_no_text_is_written_all_the_same(promotions: Promotions) -> None:
    assert promotions.promote("m", "v1", reason="\udcff why\x00\u2028").reason == "\\udcff why\x00\u2028"
    assert promotions.history("m")[0].reason == "\\udcff why\x00\u2028"


def test_config_is_laid_over_what_is_in_force(promotions: Promotions) -> None:
    promotions.promote("m", "v1", config_set={"a": 1, "b": 2})
    assert promotions.promote("m", "v2").config == {"a": 1, "b": 2}
    entry = promotions.promote("m", "active", config_set={"b": 3})
    assert (entry.kind, entry.version, entry.config) == ("config", "v2", {"a": 1, "b": 3})
    assert promotions.rollback("m").config == {"a": 1, "b": 2}


def test_an_override_is_taken_back(promotions: Promotions) -> None:
    promotions.promote("m", "v1", config_set={"a": 1, "b": 2})
    entry = promotions.promote("m", "active", config_set={"c": 3}, config_unset=["a"])
    assert (entry.kind, dict(entry.config)) == (Kind.CONFIG, {"b": 2, "c": 3})
    assert promotions.promote("m", "v1", config_unset=["a"]).generation == entry.generation


def test_how_a_change_spreads_stays_until_it_is_said_otherwise(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1", rollout="2", max_fetching=8)
    assert parse(store.read(ACTIVE)).rollout == Rollout("2", max_fetching=8)
    assert promotions.promote("m", "v2").rollout == Rollout("2", max_fetching=8)
    assert promotions.promote("m", "v1", rollout="20%").rollout == Rollout("20%", max_fetching=8)
    entry = promotions.promote("m", "active", max_fetching=32)
    assert (entry.kind, entry.rollout) == (Kind.CONFIG, Rollout("20%"))
    assert b"max_fetching" not in store.read(ACTIVE), "what is as ever is not written down"
    with pytest.raises(InvalidInput, match="max_fetching 0"):
        promotions.promote("m", "v2", max_fetching=0)


def test_ending_what_runs_goes_with_one_change_only(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1", rollout="2")
    promotions.promote("m", "v2")
    entry = promotions.rollback("m", now=True)
    assert (entry.rollout.max_unavailable, entry.rollout.now) == ("2", True)
    assert parse(store.read(ACTIVE)).rollout == entry.rollout
    assert HistoryEntry.from_bytes(store.read("models/m/history/00000003.yaml"), "x") == entry
    assert promotions.state("m").rollout.now
    assert not promotions.promote("m", "v2", force=True).rollout.now
    assert not promotions.state("m").rollout.now


def test_what_is_live_already_is_no_change(promotions: Promotions, store: ObjectStore) -> None:
    first = promotions.promote("m", "v1", config_set={"a": 1}, rollout="2")
    file = store.read(ACTIVE)
    for again in (
        promotions.promote("m", "v1"),
        promotions.promote("m", "active"),
        promotions.promote("m", "v1", config_set={"a": 1}, rollout="2", expect=1, reason="again", force=True),
    ):
        assert again == first
    assert (kinds(promotions), store.read(ACTIVE)) == (["promote v1"], file)
    assert promotions.promote("m", "v1", config_set={"a": True}).generation == 2
    assert promotions.promote("m", "v1", rollout="3").generation == 3


def test_a_retry_is_a_generation_anew(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1", config_set={"a": 1}, rollout="2")
    promotions.promote("m", "v2")
    before = promotions.state("m")
    entry = promotions.promote("m", "v2", retry=True, expect=2)
    after = promotions.state("m")
    assert (entry.generation, entry.kind, entry.digest) == (3, "promote", before.digest)
    assert (after.config, after.rollout, after.generation) == (before.config, before.rollout, 3)
    assert after.seen != before.seen
    assert promotions.previous("m") == "v1"
    assert promotions.rollback("m").version == "v1"


def test_what_is_live_already_is_held_to_expect_and_to_blocks(promotions: Promotions) -> None:
    promotions.promote("m", "v1")
    promotions.promote("m", "v2")
    with pytest.raises(GenerationChanged):
        promotions.promote("m", "v2", expect=1)
    promotions.block("m", "v2", "bad")
    with pytest.raises(VersionBlocked):
        promotions.promote("m", "v2")
    entry = promotions.promote("m", "v2", force=True)
    assert (entry.generation, entry.kind) == (2, "promote")
    promotions.rollback("m", now=True)
    assert promotions.promote("m", "v1").kind == "rollback"
    assert kinds(promotions) == ["promote v1", "promote v2", "block v2", "rollback v1"]


def test_a_pending_edit_is_recorded_and_then_is_what_is_live(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    edited = hand_edit(store, "version: v1", "version: v2")
    entry = promotions.promote("m", "v2")
    assert (entry.generation, entry.kind) == (2, "hand-edit")
    assert (kinds(promotions), store.read(ACTIVE)) == (["promote v1", "hand-edit v2"], edited)


def test_what_is_live_already_mends_a_file_that_is_behind(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    old = store.read(ACTIVE)
    entry = promotions.promote("m", "v2")
    new = store.read(ACTIVE)
    store.replace(ACTIVE, old)
    assert promotions.promote("m", "v2") == entry
    assert store.read(ACTIVE) == new
    store.delete(ACTIVE)
    assert promotions.promote("m", "v2") == entry
    assert store.read(ACTIVE) == new
    hand_edit(store, "version: v2", "version: v1")
    assert promotions.promote("m", "v1").kind == "hand-edit"
    store.delete(ACTIVE)
    assert promotions.promote("m", "v1").generation == 4  # an edit's own bytes are nowhere else
    assert not promotions.state("m").stale_file


def test_versions_that_may_not_go_live_are_refused(promotions: Promotions, table: VersionTable) -> None:
    with pytest.raises(VersionNotFound):
        promotions.promote("m", "v9")
    with pytest.raises(ModelNotFound):
        promotions.promote("other", "v1")
    table.deleted.add(("m", "v2"))
    with pytest.raises(VersionDeleted):
        promotions.promote("m", "v2", force=True)
    with pytest.raises(InvalidName):
        promotions.promote("m", "latest")
    with pytest.raises(InvalidName):
        promotions.state("../up")
    with pytest.raises(InvalidInput, match="canonical"):
        promotions.promote("m", "v1", config_set={"a": float("nan")})
    with pytest.raises(InvalidInput, match="max_unavailable"):
        promotions.promote("m", "v1", rollout="none")
    for name in ("active", "previous"):
        with pytest.raises(VersionNotFound, match=name):
            promotions.promote("m", name)
    assert promotions.history("m") == ()


def test_expect_is_strict(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    promotions.promote("m", "v1", expect=0)
    promotions.promote("m", "v2", expect=1)
    with pytest.raises(GenerationChanged, match="generation 1 was expected and 2 is in force"):
        promotions.promote("m", "v3", expect=1)
    hand_edit(store, "version: v2", "version: v4")
    with pytest.raises(GenerationChanged, match="edited by hand"):
        promotions.promote("m", "v3", expect=2)
    assert kinds(promotions) == ["promote v1", "promote v2"]


def test_a_lost_race_is_run_again(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    promotions.promote("m", "v1")
    racing = on_first(store, "create", lambda: another(store, table).promote("m", "v2"))
    assert Promotions(racing, table).promote("m", "v3").generation == 3
    assert kinds(promotions) == ["promote v1", "promote v2", "promote v3"]
    assert promotions.state("m").version == "v3"
    assert not promotions.state("m").stale_file


def test_a_lost_race_is_the_end_where_a_generation_was_expected(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    promotions.promote("m", "v1")
    racing = on_first(store, "create", lambda: another(store, table).promote("m", "v2"))
    with pytest.raises(GenerationChanged):
        Promotions(racing, table).promote("m", "v3", expect=1)
    assert kinds(promotions) == ["promote v1", "promote v2"]


def test_a_hand_edit_is_recorded_before_the_next_change(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    promotions.promote("m", "v1")
    edited = hand_edit(store, "version: v1", "version: v2")
    state = promotions.state("m")
    assert (state.version, state.digest, state.generation) == ("v2", table.digest("m", "v2"), 1)
    assert state.edited_by_hand
    promotions.promote("m", "v3")
    assert kinds(promotions) == ["promote v1", "hand-edit v2", "promote v3"]
    record = promotions.history("m")[1]
    assert (record.active_sha256, record.base_sha256, record.digest) == (
        sha256(edited), sha256(edited), table.digest("m", "v2"),
    )  # fmt: skip
    assert promotions.history("m")[2].base_sha256 == sha256(edited)
    assert promotions.previous("m") == "v2"


def test_a_first_file_may_be_written_by_hand(promotions: Promotions, store: ObjectStore) -> None:
    store.create(ACTIVE, b"version: v2\n")
    assert (promotions.state("m").version, promotions.state("m").generation) == ("v2", 0)
    promotions.promote("m", "v3")
    assert kinds(promotions) == ["hand-edit v2", "promote v3"]


def test_an_edit_to_what_is_not_there_yet_is_noticed_when_it_is(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    promotions.promote("m", "v1")
    hand_edit(store, "version: v1", "version: v6")
    before = promotions.state("m")
    assert (before.version, before.digest) == ("v6", None)
    table.models["m"].append("v6")
    after = promotions.state("m")
    assert after.digest == table.digest("m", "v6")
    assert after.seen != before.seen


def test_an_edit_during_a_promotion_wins(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    promotions.promote("m", "v1")
    racing = on_first(store, "create", lambda: hand_edit(store, "version: v1", "version: v2"))
    Promotions(racing, table).promote("m", "v3")
    state = promotions.state("m")
    assert (state.version, state.edited_by_hand, state.generation) == ("v2", True, 2)
    promotions.promote("m", "v4")
    assert kinds(promotions) == ["promote v1", "promote v3", "hand-edit v2", "promote v4"]


def test_a_stale_file_is_mended_by_the_next_change(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    old = store.read(ACTIVE)
    promotions.promote("m", "v2")
    store.replace(ACTIVE, old)
    state = promotions.state("m")
    assert (state.version, state.stale_file, state.edited_by_hand) == ("v2", True, False)
    promotions.promote("m", "v3")
    assert not promotions.state("m").stale_file
    assert kinds(promotions) == ["promote v1", "promote v2", "promote v3"]


def test_a_file_that_is_gone_is_written_again(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    store.delete(ACTIVE)
    assert promotions.state("m").version == "v1"
    promotions.promote("m", "v2")
    assert parse(store.read(ACTIVE)).version == "v2"


def test_an_unreadable_edit_stops_promotion_and_no_rollback(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    promotions.promote("m", "v2")
    broken = b"version: [v3\n"
    store.replace(ACTIVE, broken)
    with pytest.raises(InvalidActiveFile):
        promotions.state("m")
    with pytest.raises(InvalidActiveFile):
        promotions.promote("m", "v3")
    with pytest.raises(InvalidActiveFile):
        promotions.block("m", "v3")
    entry = promotions.rollback("m")
    assert (entry.version, entry.base_sha256) == ("v1", sha256(broken))
    assert store.read(f"models/m/history/.lost-{sha256(broken)}") == broken
    assert promotions.state("m").version == "v1"


def test_a_save_that_is_under_way_is_waited_for(store: ObjectStore, table: VersionTable) -> None:
    Promotions(store, table).promote("m", "v1")
    store.replace(ACTIVE, b"")
    saving = Promotions(store, table, sleep=lambda _: store.replace(ACTIVE, b"version: v2\n"))
    saving.promote("m", "v3")
    assert kinds(saving) == ["promote v1", "hand-edit v2", "promote v3"]


def test_force_promotes_over_an_unreadable_edit(promotions: Promotions, store: ObjectStore) -> None:
    store.create(ACTIVE, b"")
    promotions.promote("m", "v1", force=True)
    assert promotions.state("m").version == "v1"


def test_an_unreadable_edit_that_was_overridden_counts_no_more(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    promotions.promote("m", "v1")
    store.replace(ACTIVE, b"broken: [")
    killed = faulty(store, Fault(at=1, moment="after", how="kill", verbs=frozenset({"create"})))
    with pytest.raises(KillNow):
        Promotions(killed, table, sleep=lambda _: None).promote("m", "v2", force=True)
    state = promotions.state("m")
    assert (state.version, state.stale_file) == ("v2", True)


def test_rollback_blocks_what_it_leaves(promotions: Promotions) -> None:
    for version in ("v1", "v2", "v3"):
        promotions.promote("m", version)
    assert promotions.previous("m") == "v2"
    entry = promotions.rollback("m", reason="bad colours")
    assert (entry.kind, entry.version, entry.from_generation) == ("rollback", "v2", 2)
    with pytest.raises(VersionBlocked, match=r"generation 4.*bad colours.*--force"):
        promotions.promote("m", "v3")
    assert promotions.previous("m") == "v1"
    assert promotions.rollback("m").version == "v1"
    with pytest.raises(VersionNotFound, match="m@v1 is active"):
        promotions.rollback("m")
    assert promotions.previous("m") is None
    assert set(promotions.blocked("m")) == {"v2", "v3"}
    promotions.promote("m", "v3", force=True)
    promotions.unblock("m", "v2")
    promotions.promote("m", "v2")
    assert promotions.state("m").version == "v2"


def test_rollback_may_leave_a_version_open(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    promotions.promote("m", "v2")
    promotions.rollback("m", block=False)
    assert b"block: false" in store.read("models/m/history/00000003.yaml")
    promotions.promote("m", "v2")
    assert promotions.state("m").version == "v2"


def test_rollback_to_a_version(promotions: Promotions, table: VersionTable) -> None:
    for number, version in enumerate(("v1", "v2", "v3")):
        promotions.promote("m", version, config_set={"n": number})
    with pytest.raises(InvalidInput, match="active already"):
        promotions.rollback("m", to="v3")
    with pytest.raises(VersionNotFound):
        promotions.rollback("m", to="v9")
    promotions.block("m", "v2")
    with pytest.raises(VersionBlocked):
        promotions.rollback("m", to="v2")
    entry = promotions.rollback("m", to="v1")
    assert (entry.version, entry.from_generation, entry.config) == ("v1", 1, {"n": 0})
    assert promotions.rollback("m", to="v5").from_generation is None


def test_rollback_passes_over_deleted_versions_and_ones_that_never_were(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    promotions.promote("m", "v1")
    promotions.promote("m", "v2")
    hand_edit(store, "version: v2", "version: typo")
    assert promotions.previous("m") == "v2"
    promotions.promote("m", "v3")
    table.deleted.add(("m", "v2"))
    assert promotions.previous("m") == "v1"
    assert promotions.rollback("m").version == "v1"


def test_rollback_leaves_a_hand_edited_version(promotions: Promotions, store: ObjectStore) -> None:
    promotions.promote("m", "v1")
    hand_edit(store, "version: v1", "version: v2")
    assert promotions.rollback("m").version == "v1"
    assert kinds(promotions) == ["promote v1", "hand-edit v2", "rollback v1"]
    assert set(promotions.blocked("m")) == {"v2"}


def test_nothing_to_roll_back(promotions: Promotions) -> None:
    with pytest.raises(VersionNotFound, match="never promoted"):
        promotions.rollback("m")


def test_block_and_unblock(promotions: Promotions) -> None:
    promotions.block("m", "v2", reason="leaks")
    assert (promotions.state("m").version, promotions.state("m").generation) == (None, 1)
    with pytest.raises(VersionBlocked, match="leaks"):
        promotions.promote("m", "v2")
    promotions.promote("m", "v1")
    promotions.block("m", "v1")
    assert (promotions.state("m").version, promotions.state("m").generation) == ("v1", 3)
    promotions.unblock("m", "v2")
    with pytest.raises(InvalidInput, match="not blocked"):
        promotions.unblock("m", "v2")
    with pytest.raises(VersionNotFound):
        promotions.block("m", "v9")
    assert kinds(promotions) == ["block v2", "promote v1", "block v1", "unblock v2"]


def test_edit_saves_and_records(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    promotions.promote("m", "v1")
    seen = promotions.active_bytes("m")
    assert seen == store.read(ACTIVE)
    new = seen.replace(b"version: v1", b"version: v2").replace(b"config: {}", b"config: {a: 1}")
    entry = promotions.edit("m", new, seen)
    assert (entry.kind, entry.version, entry.generation, entry.config) == ("hand-edit", "v2", 2, {"a": 1})
    assert store.read(ACTIVE) == new
    state = promotions.state("m")
    assert (state.version, state.digest, state.edited_by_hand) == ("v2", table.digest("m", "v2"), False)
    with pytest.raises(GenerationChanged):
        promotions.edit("m", new + b"# more\n", seen)
    for bad, error in (
        (b"version: [", InvalidActiveFile),
        (b"version:", InvalidInput),
        (b"version: v9", VersionNotFound),
    ):
        with pytest.raises(error):
            promotions.edit("m", bad, new)
    assert store.read(ACTIVE) == new


def test_edit_of_nothing_yet_and_of_a_stale_file(promotions: Promotions, store: ObjectStore) -> None:
    template = promotions.active_bytes("m")
    assert promotions.edit("m", template.replace(b"version: null", b"version: v1"), template).version == "v1"
    stale = store.read(ACTIVE)
    promotions.promote("m", "v2")
    store.replace(ACTIVE, stale)
    seen = promotions.active_bytes("m")
    assert b"version: v2" in seen
    assert promotions.edit("m", stale, seen).version == "v1"
    assert promotions.state("m").version == "v1"
    assert not promotions.state("m").edited_by_hand


def test_a_save_in_the_last_moment_is_kept(tmp_path: Path, table: VersionTable) -> None:
    class Editor(FilesystemStore):
        save: bytes | None = None

        def exchange(self, key: str, data: bytes) -> bytes | None:
            if self.save is not None:
                (self.root / key).write_bytes(self.save)
            return super().exchange(key, data)

    store = Editor(tmp_path)
    promotions = Promotions(store, table)
    promotions.promote("m", "v1")
    store.save = b"version: v2\n"
    promotions.promote("m", "v3")
    assert store.read(f"models/m/history/.lost-{sha256(store.save)}") == store.save
    assert promotions.state("m").version == "v3"
    assert kinds(promotions) == ["promote v1", "promote v3"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_acknowledgement_is_looked_up(store: ObjectStore, table: VersionTable, moment: str) -> None:
    count = operations_of_a_promotion(store, table)
    for at in range(1, count + 1):
        fresh = MemoryStore("m", MemoryBucket()) if isinstance(store, MemoryStore) else copy(store, at, moment)
        Promotions(fresh, table).promote("m", "v1")
        failing = faulty(fresh, Fault(at=at, moment=moment, how="fail"))  # type: ignore[arg-type]
        try:
            entry = Promotions(failing, table).promote("m", "v2")
        except Unreachable:
            # Only a read may fail the change: nothing was written by then.
            assert failing.operations[at - 1][0] not in WRITES
            assert [entry.version for entry in Promotions(fresh, table).history("m")] == ["v1"]
        else:
            assert entry.generation == 2
            assert [entry.version for entry in Promotions(fresh, table).history("m")] == ["v1", "v2"]
            assert Promotions(fresh, table).state("m").version == "v2"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_promotion_killed_anywhere_is_there_or_not(store: ObjectStore, table: VersionTable, moment: str) -> None:
    count = operations_of_a_promotion(store, table)
    happened = []
    for at in range(1, count + 1):
        fresh = MemoryStore("m", MemoryBucket()) if isinstance(store, MemoryStore) else copy(store, at, moment)
        Promotions(fresh, table).promote("m", "v1")
        killed = faulty(fresh, Fault(at=at, moment=moment, how="kill"))  # type: ignore[arg-type]
        with pytest.raises(KillNow):
            Promotions(killed, table).promote("m", "v2")
        after = Promotions(fresh, table)
        state = after.state("m")
        assert state.version == after.history("m")[-1].version
        assert not state.edited_by_hand
        happened.append(state.version == "v2")
        after.promote("m", "v3")
        state = after.state("m")
        assert (state.version, state.stale_file) == ("v3", False)
        assert [entry.generation for entry in after.history("m")] == list(range(1, state.generation + 1))
    assert happened == sorted(happened)
    assert not happened[0]
    assert happened[-1]


def test_a_full_disk_after_the_change_is_no_failure_of_it(store: ObjectStore, table: VersionTable) -> None:
    def full() -> None:
        raise NoSpace("disk full")

    Promotions(store, table).promote("m", "v1")
    racing = on_first(store, "exchange" if store.ability.local else "replace", full)
    assert Promotions(racing, table).promote("m", "v2").generation == 2
    state = Promotions(store, table).state("m")
    assert (state.version, state.stale_file) == ("v2", True)


def test_a_store_that_never_answers_is_unreachable(store: ObjectStore, table: VersionTable) -> None:
    Promotions(store, table).promote("m", "v1")
    failing = faulty(store, *(Fault(at=at, verbs=frozenset({"create"})) for at in range(1, 20)))
    with pytest.raises(Unreachable):
        Promotions(failing, table).promote("m", "v2")
    assert Promotions(store, table).state("m").version == "v1"


def test_a_look_where_nothing_changed_costs_one_read_and_one_probe(store: ObjectStore, table: VersionTable) -> None:
    Promotions(store, table).promote("m", "v1")
    Promotions(store, table).promote("m", "v2")
    counting = faulty(store)
    promotions = Promotions(counting, table)
    first = promotions.state("m")
    assert {verb for verb, _ in counting.operations} == {"read"}
    counting.operations.clear()
    assert promotions.state("m") == first
    assert counting.operations == [("read", ACTIVE), ("read", "models/m/history/00000003.yaml")]
    hand_edit(store, "version: v2", "version: v1")
    assert promotions.state("m").edited_by_hand
    counting.operations.clear()
    assert promotions.state("m").edited_by_hand
    assert counting.operations == [("read", ACTIVE), ("read", "models/m/history/00000003.yaml")]


def test_every_look_sees_what_others_did(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    other = another(store, table)
    seen = {promotions.state("m").seen}
    for version in ("v1", "v2", "v3"):
        other.promote("m", version)
        assert promotions.state("m").version == version
        seen.add(promotions.state("m").seen)
    other.rollback("m")
    assert promotions.state("m").version == "v2"
    other.block("m", "v5")
    assert promotions.state("m").generation == 5
    assert len(seen) == 4


def on_first(store: ObjectStore, verb: str, action: Callable[[], object]) -> ObjectStore:
    """Return a store that does something of its own just before the first operation of one kind."""
    left = [action]

    def before(each: Verb, _: str) -> None:
        if each == verb and left:
            left.pop()()

    return faulty(store, before=before)


def operations_of_a_promotion(store: ObjectStore, table: VersionTable) -> int:
    fresh = MemoryStore("m", MemoryBucket()) if isinstance(store, MemoryStore) else copy(store, 0, "count")
    Promotions(fresh, table).promote("m", "v1")
    counting = faulty(fresh)
    Promotions(counting, table).promote("m", "v2")
    return len(counting.operations)


def copy(store: ObjectStore, at: int, moment: str) -> ObjectStore:
    assert isinstance(store, FilesystemStore)
    return FilesystemStore(store.root / f"{moment}-{at}")


def test_a_version_whose_deletion_has_begun_goes_live_no_more(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    for version in ("v1", "v2", "v3"):
        promotions.promote("m", version)
    head = promotions.history("m")[-1]
    entry = replace(head, generation=4, kind=Kind.DELETE, version="v2", digest=table.digest("m", "v2"), change="x")
    store.create("models/m/history/00000004.yaml", entry.to_bytes())  # and its tombstone was never written
    assert promotions.state("m").version == "v3"
    assert promotions.previous("m") == "v1"
    seen = promotions.active_bytes("m")
    with pytest.raises(VersionDeleted):
        promotions.promote("m", "v2", force=True)
    with pytest.raises(VersionDeleted):
        promotions.rollback("m", to="v2")
    with pytest.raises(VersionDeleted):
        promotions.edit("m", b"version: v2\n", seen)
    assert promotions.rollback("m").version == "v1"


def test_of_two_rollbacks_at_once_one_goes_back(
    promotions: Promotions, store: ObjectStore, table: VersionTable
) -> None:
    for version in ("v1", "v2", "v3"):
        promotions.promote("m", version)
    faster = [another(store, table)]

    def overtake(verb: Verb, key: str) -> None:
        if verb == "create" and key.endswith("00000004.yaml") and faster:
            faster.pop().rollback("m")

    slower = Promotions(faulty(store, before=overtake), table)
    with pytest.raises(GenerationChanged, match="v3 was to be left, and by generation 4 v2 is active"):
        slower.rollback("m")
    assert kinds(promotions)[3:] == ["rollback v2"]


def test_a_long_history_is_read_side_by_side(promotions: Promotions, store: ObjectStore, table: VersionTable) -> None:
    for number in range(SIDE_BY_SIDE + 3):
        promotions.promote("m", VERSIONS[number % 2])
    fresh = another(store, table)
    assert fresh.history("m") == promotions.history("m")
    store.delete("models/m/history/00000007.yaml")
    with pytest.raises(Corrupt, match="00000007"):
        another(store, table).history("m")


def test_an_unreadable_edit_that_cannot_be_kept_is_not_overwritten(store: ObjectStore, table: VersionTable) -> None:
    Promotions(store, table).promote("m", "v1")
    store.replace(ACTIVE, b"broken: [")
    second_create = Fault(at=2, how="fail", verbs=frozenset({"create"}))
    promotions = Promotions(faulty(store, second_create), table, sleep=lambda _: None)
    assert promotions.promote("m", "v2", force=True).generation == 2
    assert store.read(ACTIVE) == b"broken: ["
    assert (promotions.state("m").version, promotions.state("m").stale_file) == ("v2", True)
