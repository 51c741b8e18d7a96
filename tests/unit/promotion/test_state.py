"""What is live follows from the file's bytes and the history, by the rules of the format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelrepo.canonical import Json, sha256
from modelrepo.errors import Corrupt, InvalidActiveFile, NewerFormat
from modelrepo.promotion import yaml_text
from modelrepo.promotion.active_file import ActiveFile, Rollout, render
from modelrepo.promotion.history import ACTIVATING, HistoryEntry, HistoryReader, Kind
from modelrepo.promotion.state import Live, blocked, derive, way_back, with_digest
from modelrepo.stores.memory import MemoryBucket, MemoryStore

Change = tuple[Kind, str] | tuple[Kind, str, int | None]


def digest_of(version: str) -> str:
    return sha256(version.encode())


def written(*changes: Change) -> tuple[list[HistoryEntry], list[bytes]]:
    """Return the entries of these changes and the file that each wrote."""
    entries: list[HistoryEntry] = []
    files: list[bytes] = []
    live = Live()
    for number, (kind, version, *origin) in enumerate(changes, 1):
        if kind in ACTIVATING:
            live = Live(version, digest_of(version), {"from": number}, Rollout())
        file = render(live.file(number))
        entries.append(
            HistoryEntry(
                number, kind, version, digest_of(version), live.config, live.rollout, "someone", "2026-01-01T00:00:00Z",
                f"change{number}", sha256(files[-1]) if files else None, sha256(file), origin[0] if origin else None,
            )
        )  # fmt: skip
        files.append(file)
    return entries, files


V123: Sequence[Change] = ((Kind.PROMOTE, "v1"), (Kind.PROMOTE, "v2"), (Kind.PROMOTE, "v3"))


def test_nothing_written_is_nothing_live() -> None:
    state = derive("m", None, [])
    assert (state.version, state.digest, state.generation, state.config) == (None, None, 0, {})
    assert not state.stale_file
    assert not state.edited_by_hand


def test_the_file_of_the_head_is_live() -> None:
    entries, files = written(*V123)
    state = derive("m", files[-1], entries)
    assert (state.version, state.digest, state.generation, state.config) == ("v3", digest_of("v3"), 3, {"from": 3})
    assert not state.stale_file
    assert state.notes == ()


def test_an_older_file_is_passed_over() -> None:
    entries, files = written(*V123)
    state = derive("m", files[0], entries)
    assert (state.version, state.generation, state.stale_file, state.edited_by_hand) == ("v3", 3, True, False)
    assert "generation 1" in state.notes[0]
    assert derive("m", None, entries).version == "v3"
    assert derive("m", None, entries).stale_file


def test_the_end_of_the_history_is_enough() -> None:
    entries, files = written(*V123)
    for start in range(3):
        assert derive("m", files[start], entries[start:]) == derive("m", files[start], entries)


def test_changes_that_speak_of_another_version_leave_what_is_live() -> None:
    entries, files = written((Kind.PROMOTE, "v1"), (Kind.BLOCK, "v2"), (Kind.DELETE, "v0"))
    for file in (*files, None):
        state = derive("m", file, entries)
        assert (state.version, state.digest, state.generation, state.config) == ("v1", digest_of("v1"), 3, {"from": 1})


def test_a_block_before_any_promotion_leaves_nothing_live() -> None:
    entries, files = written((Kind.BLOCK, "v1"))
    state = derive("m", files[0], entries)
    assert (state.version, state.generation, state.edited_by_hand) == (None, 1, False)


def test_a_hand_edit_wins() -> None:
    entries, _ = written(*V123)
    state = derive("m", b"version: v1\nconfig: {a: 1}\nrollout: {max_unavailable: 3}\n", entries)
    assert (state.version, state.digest, state.generation) == ("v1", None, 3)
    assert (state.config, state.rollout.max_unavailable, state.edited_by_hand) == ({"a": 1}, "3", True)


def test_a_hand_edited_generation_is_ignored() -> None:
    entries, _ = written(*V123)
    for generation in (0, 2, 3, 4, 10**6):
        state = derive("m", f"version: v1\ngeneration: {generation}\n".encode(), entries)
        assert (state.generation, state.version) == (3, "v1")


def test_changing_the_version_alone_ignores_the_digest_that_stayed() -> None:
    entries, files = written(*V123)
    state = derive("m", files[-1].replace(b"version: v3", b"version: v9"), entries)
    assert (state.version, state.digest, state.edited_by_hand) == ("v9", None, True)
    assert any("v3" in note and "ignored" in note for note in state.notes)


def test_a_recorded_edit_is_no_edit_any_more() -> None:
    entries, files = written(*V123)
    file = files[-1].replace(b"version: v3", b"version: v1")
    record = replace(
        entries[-1], generation=4, kind=Kind.HAND_EDIT, version="v1", digest=digest_of("v1"), active_sha256=sha256(file)
    )
    state = derive("m", file, [*entries, record])
    assert (state.version, state.digest, state.generation, state.edited_by_hand) == ("v1", digest_of("v1"), 4, False)


def test_an_edit_that_a_change_was_based_on_is_overridden() -> None:
    entries, _ = written(*V123)
    edit = b"version: v1\n"
    over = replace(entries[-1], generation=4, version="v2", digest=digest_of("v2"), base_sha256=sha256(edit))
    state = derive("m", edit, [*entries, replace(over, active_sha256="0" * 64)])
    assert (state.version, state.generation, state.edited_by_hand, state.stale_file) == ("v2", 4, False, True)


@pytest.mark.parametrize("text", [b"", b"version: ~", b"version: [", b"nonsense"])
def test_an_edit_that_cannot_be_read_is_an_error(text: bytes) -> None:
    entries, _ = written(*V123)
    with pytest.raises(InvalidActiveFile):
        derive("m", text, entries)


def test_the_repository_completes_an_edit() -> None:
    known = {version: digest_of(version) for version in ("v1", "v2", "v3")}
    bare = derive("m", b"version: v2\n", [])
    assert with_digest(bare, known.get, lambda: known).digest == digest_of("v2")
    others = derive("m", f"version: v2\ndigest: {digest_of('v3')}\n".encode(), [])
    assert with_digest(others, known.get, lambda: known).digest == digest_of("v2")
    nobodys = derive("m", f"version: v2\ndigest: {digest_of('x')}\n".encode(), [])
    assert with_digest(nobodys, known.get, lambda: known).digest == digest_of("x")
    missing = with_digest(derive("m", b"version: v9\n", []), known.get, lambda: known)
    assert (missing.version, missing.digest) == ("v9", None)
    assert "does not exist" in missing.notes[-1]


def test_seen_changes_exactly_with_the_state() -> None:
    entries, files = written(*V123)
    seen = [derive("m", file, entries[:count]).seen for count, file in ((1, files[0]), (2, files[0]), (2, files[1]))]
    assert len(set(seen)) == 3
    assert derive("m", files[1], entries[:2]).seen == seen[2]
    assert derive("m", b"version: v1\n", entries).seen != derive("m", b"version: v1 \n", entries).seen


def test_who_is_blocked() -> None:
    entries, _ = written(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.BLOCK, "v1"))
    assert set(blocked(entries)) == {"v3", "v1"}
    entries, _ = written(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.UNBLOCK, "v3"))
    assert set(blocked(entries)) == set()
    entries, _ = written(*V123, (Kind.ROLLBACK, "v2", 2))
    assert set(blocked([*entries[:3], replace(entries[3], blocks=False)])) == set()


def anything(_: str) -> bool:
    return True


def back(*changes: Change, allowed: Sequence[str] = ("v1", "v2", "v3", "v4", "v5")) -> str | None:
    entry = way_back(written(*changes)[0], lambda version: version in allowed)
    return entry.version if entry else None


def test_the_way_back_is_the_version_before() -> None:
    assert back() is None
    assert back((Kind.PROMOTE, "v1")) is None
    assert back(*V123) == "v2"
    assert back(*V123, (Kind.CONFIG, "v3"), (Kind.PROMOTE, "v3")) == "v2"


def test_the_way_back_passes_over_deleted_and_blocked() -> None:
    assert back(*V123, allowed=("v1", "v3")) == "v1"
    assert back(*V123, (Kind.BLOCK, "v2")) == "v1"
    assert back(*V123, (Kind.BLOCK, "v2"), (Kind.BLOCK, "v1")) is None


def test_a_second_rollback_goes_further_back() -> None:
    assert back(*V123, (Kind.ROLLBACK, "v2", 2)) == "v1"
    assert back(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.ROLLBACK, "v1", 1)) is None


def test_a_second_rollback_never_goes_forth_even_to_what_is_not_blocked() -> None:
    entries, _ = written(*V123, (Kind.ROLLBACK, "v2", 2))
    entries[3] = replace(entries[3], blocks=False)
    found = way_back(entries, anything)
    assert found is not None
    assert found.version == "v1"


def test_the_way_back_starts_where_the_version_came_from() -> None:
    again: Sequence[Change] = ((Kind.PROMOTE, "v1"), (Kind.PROMOTE, "v2"), (Kind.PROMOTE, "v1"), (Kind.PROMOTE, "v3"))
    assert back(*again) == "v1"
    assert back(*again, (Kind.ROLLBACK, "v1", 3)) == "v2"
    assert back(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.PROMOTE, "v4")) == "v2"
    assert back(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.PROMOTE, "v4"), (Kind.ROLLBACK, "v2", 4)) == "v1"


def test_a_forged_origin_does_not_loop() -> None:
    for origin in (3, 9, 0, -1):
        assert back((Kind.PROMOTE, "v1"), (Kind.PROMOTE, "v2"), (Kind.ROLLBACK, "v3", origin)) == "v1"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["promote", "back", "block"]), st.sampled_from(["v1", "v2", "v3", "v4"]))))
def test_rollbacks_in_a_row_never_return_and_always_end(steps: list[tuple[str, str]]) -> None:
    changes: list[Change] = []
    for step, version in steps:
        entries, _ = written(*changes)
        if step == "promote":
            changes.append((Kind.PROMOTE, version))
        elif step == "block":
            changes.append((Kind.BLOCK, version))
        elif (target := way_back(entries, anything)) is not None:
            changes.append((Kind.ROLLBACK, target.version, target.generation))
    seen: list[str] = []
    while (target := way_back(written(*changes)[0], anything)) is not None:
        assert target.version not in seen
        seen.append(target.version)
        changes.append((Kind.ROLLBACK, target.version, target.generation))


def test_entries_are_read_back() -> None:
    entries, _ = written(*V123, (Kind.ROLLBACK, "v2", 2), (Kind.BLOCK, "v1"))
    for entry in (*entries, replace(entries[3], blocks=False, reason="it: broke # badly", digest=None)):
        assert HistoryEntry.from_bytes(entry.to_bytes(), "x") == entry
    assert set(entries[0].to_json()) == {
        "generation", "kind", "version", "digest", "config", "rollout", "from", "by", "at", "reason", "change",
        "base_sha256", "active_sha256",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"kind": "canary"}, {"format": 2}, {"requires": ["channels"]}], ids=["kind", "format", "requires"]
)
def test_a_newer_entry_is_refused_by_name(change: dict[str, Json]) -> None:
    document = {**written(*V123)[0][0].to_json(), **change}
    with pytest.raises(NewerFormat, match=r"history/00000001\.yaml"):
        HistoryEntry.from_bytes(yaml_text.dump(document).encode(), "models/m/history/00000001.yaml")


@pytest.mark.parametrize("change", [{"version": "../../x"}, {"rollout": "soon"}, {"config": 3}, {"digest": "v1"}])
def test_an_entry_with_a_value_of_no_meaning_is_corrupt(change: dict[str, Json]) -> None:
    document = {**written(*V123)[0][0].to_json(), **change}
    with pytest.raises(Corrupt, match="00000001"):
        HistoryEntry.from_bytes(yaml_text.dump(document).encode(), "models/m/history/00000001.yaml")


def test_an_entry_ignores_keys_that_it_does_not_know() -> None:
    entry = written(*V123)[0][0]
    assert HistoryEntry.from_bytes(yaml_text.dump({**entry.to_json(), "new": [1]}).encode(), "x") == entry


@pytest.mark.parametrize("data", [b"", b"generation: 1", b"[1]", b"\xff\xfe\xfd", b"generation: x\nkind: promote"])
def test_a_broken_entry_is_named(data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"models/m/history/00000001\.yaml"):
        HistoryEntry.from_bytes(data, "models/m/history/00000001.yaml")


def test_a_gap_in_the_history_is_an_error() -> None:
    store = MemoryStore("x", MemoryBucket())
    entries, _ = written(*V123)
    for entry in (entries[0], entries[2]):
        store.create(f"models/m/history/{entry.generation:08d}.yaml", entry.to_bytes())
    with pytest.raises(Corrupt, match="00000002"):
        HistoryReader(store, "m").all()
    store.create("models/m/history/999999999999.yaml", b"x")
    with pytest.raises(Corrupt, match="00000002"):
        HistoryReader(store, "m").all()


def test_who_follows_the_newest_change_keeps_no_history() -> None:
    store = MemoryStore("x", MemoryBucket())
    entries, _ = written(*V123)
    for entry in entries:
        store.create(f"models/m/history/{entry.generation:08d}.yaml", entry.to_bytes())
    follower, writer = HistoryReader(store, "m"), HistoryReader(store, "m")
    assert follower.since(1) == writer.all() == tuple(entries)
    for reader in (follower, writer):
        reader.forget_before(3)
    for generation in (1, 2):
        store.delete(f"models/m/history/{generation:08d}.yaml")
    assert follower.since(2) == () and follower.since(3) == (entries[2],), "what it let go of is read again"
    assert writer.all() == tuple(entries), "what was wanted whole is kept whole"


def test_files_of_others_in_the_history_are_passed_over() -> None:
    store = MemoryStore("x", MemoryBucket())
    entries, _ = written(*V123)
    for entry in entries:
        store.create(f"models/m/history/{entry.generation:08d}.yaml", entry.to_bytes())
    store.create("models/m/history/.lost-abc", b"x")
    store.create("models/m/history/notes.txt", b"x")
    store.create("models/m/history/000000009.yaml", b"x")
    assert HistoryReader(store, "m").all() == tuple(entries)
    assert ActiveFile("v1") == ActiveFile("v1", None, None, {}, Rollout())


def test_the_documented_entry_is_one(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "format.md").read_text()
    shown = text.partition("## Promotion")[2].partition("```yaml\n")[2].partition("```")[0]
    entry = HistoryEntry.from_bytes(shown.encode(), "docs/format.md")
    assert entry.to_bytes().decode() == shown
    table = text.partition("| key | holds |")[2].partition("\n\n")[0]
    documented = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")
    }
    assert documented == {*entry.to_json(), "block"}
    assert all(f"`{kind}`" in table for kind in Kind)
