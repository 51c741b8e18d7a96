"""Every document that a repository holds is read back as it was written, by this format's rules and no others.

Manifests and active files have their own pages, beside what they belong to.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo import canonical, layout
from modelrepo.canonical import Json
from modelrepo.clock import Clock
from modelrepo.errors import Corrupt, ModelRepoError, NewerFormat
from modelrepo.maintenance.pending import Condemned
from modelrepo.names import Reference, parse_reference
from modelrepo.promotion import yaml_text
from modelrepo.promotion.active_file import Rollout, parse
from modelrepo.promotion.history import HistoryEntry, Kind
from modelrepo.publication.leases import PushLease, read_digests
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.versions.bundles import Bundle, parse_bundle
from modelrepo.versions.manifest import PLAIN, ChunkRecord, FileRecord
from modelrepo.versions.paths import name_problem

NAME = "documents/one.json"

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
versions = st.from_regex(r"v[0-9]{1,4}|[A-Za-z0-9]([A-Za-z0-9._+-]{0,20}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: name not in ("active", "previous", "latest", "git")
)
models = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
wheel_names = texts.map(lambda text: f"{text}-1-py3-none-any.whl").filter(lambda name: name_problem(name) is None)


@st.composite
def wheels(draw: st.DrawFn) -> FileRecord:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=8), max_size=3))
    records = tuple(ChunkRecord(hashlib.sha256(chunk).hexdigest(), len(chunk)) for chunk in chunks)
    whole = b"".join(chunks)
    return FileRecord(draw(wheel_names), PLAIN, len(whole), hashlib.sha256(whole).hexdigest(), records)


bundles = st.builds(
    Bundle,
    environment=digests,
    extra=st.none() | st.sampled_from(["cu128", "rocm"]),
    python=st.sampled_from(["cp311", "cp312"]),
    platform=st.sampled_from(["linux_x86_64", "macosx_14_0_arm64"]),
    wheels=st.lists(wheels(), max_size=3, unique_by=lambda record: record.path).map(
        lambda records: tuple(sorted(records, key=lambda record: record.path))
    ),
)
entries = st.builds(
    HistoryEntry,
    generation=st.integers(1, 10**9),
    kind=st.sampled_from(Kind),
    version=versions,
    digest=st.none() | digests,
    config=st.dictionaries(texts, values, max_size=3),
    rollout=st.sampled_from([Rollout(), Rollout("2"), Rollout("100%", now=True)]),
    by=texts,
    at=st.just("2026-01-31T12:00:00Z"),
    change=digests,
    base_sha256=st.none() | digests,
    active_sha256=digests,
    from_generation=st.none() | st.integers(1, 10**6),
    reason=st.none() | texts,
)


@given(models, st.none() | versions | st.sampled_from(["active", "previous"]) | digests.map("git:{}".format))
def test_a_reference_is_read_back(model: str, version: str | None) -> None:
    reference = Reference(model, version)
    assert parse_reference(str(reference)) == reference


@given(bundles)
def test_a_bundle_is_read_back(bundle: Bundle) -> None:
    key, data = bundle.document()
    assert parse_bundle(key, data) == bundle
    where = (bundle.environment, bundle.extra, bundle.python, bundle.platform)
    assert key == layout.bundle(*where, canonical.sha256(data))


@given(entries)
def test_a_history_entry_is_read_back(entry: HistoryEntry) -> None:
    again = HistoryEntry.from_bytes(entry.to_bytes(), NAME)
    assert canonical.dumps(again.to_json()) == canonical.dumps(entry.to_json())
    assert again.to_bytes() == entry.to_bytes()


@given(st.sets(digests, max_size=5), texts)
def test_a_lease_is_read_back(held: set[str], by: str) -> None:
    store = MemoryStore("leases", MemoryBucket())
    PushLease(store, model="tiny", by=by, digests=held, clock=Clock()).take()
    (stat,) = store.list(layout.PUSHES)
    assert set(read_digests(stat.key, store.read(stat.key))) == held


@given(
    st.dictionaries(digests, st.integers(0, 2**40), max_size=4),
    st.dictionaries(digests, st.integers(0, 2**40), max_size=2),
)
def test_a_mark_of_prune_is_read_back(objects: dict[str, int], environments: dict[str, int]) -> None:
    condemned = Condemned({key: size for key, size in objects.items() if key not in environments}, environments)
    assert Condemned.from_bytes(condemned.to_bytes("p1", at="", by=""), NAME) == condemned


# What all of them have in common.


def a_lease() -> dict[str, Any]:
    return {"format": 1, "id": "l", "model": "tiny", "at": "", "by": "", "digests": ["sha256:" + "a" * 64]}


def a_mark() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Condemned({"a" * 64: 3}, {}).to_bytes("p1", at="", by=""))
    return document


def a_bundle() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Bundle("e" * 64, None, "cp311", "linux_x86_64", ()).document()[1])
    return document


def an_entry() -> dict[str, Any]:
    return {
        "generation": 1, "kind": "promote", "version": "v1", "digest": None, "config": {}, "rollout": {},
        "from": None, "by": "", "at": "", "reason": None, "change": "c", "base_sha256": None, "active_sha256": "b" * 64,
    }  # fmt: skip


def read_lease(document: Json) -> object:
    return set(read_digests(NAME, canonical.dumps(document)))


def read_mark(document: Json) -> object:
    return Condemned.from_bytes(canonical.dumps(document), NAME)


def read_bundle(document: Json) -> object:
    data = canonical.dumps(document)
    return parse_bundle(f"environments/{'e' * 64}/_/cp311-linux_x86_64/{canonical.sha256(data)}.json", data)


def read_entry(document: Json) -> object:
    return HistoryEntry.from_bytes(yaml_text.dump(document).encode() if isinstance(document, dict) else b"[]", NAME)


def read_active(document: Json) -> object:
    return parse(yaml_text.dump(document).encode() if isinstance(document, dict) else b"[]")


KINDS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Json], object]]] = {
    "lease": (a_lease, read_lease),
    "mark": (a_mark, read_mark),
    "bundle": (a_bundle, read_bundle),
    "history entry": (an_entry, read_entry),
    "active file": (lambda: {"version": "v1", "config": {}}, read_active),
}


@pytest.mark.parametrize("kind", KINDS)
@given(key=st.text(string.ascii_lowercase, min_size=1).map("x_{}".format), value=values)
def test_unknown_keys_are_ignored(kind: str, key: str, value: Json) -> None:
    make, read = KINDS[kind]
    assert read({**make(), key: value}) == read(make())


@pytest.mark.parametrize("kind", KINDS)
@given(change=st.integers(2, 2**40).map(lambda number: {"format": number}) | st.just({"requires": ["more"]}))
def test_what_is_newer_is_refused_by_name(kind: str, change: dict[str, Any]) -> None:
    make, read = KINDS[kind]
    with pytest.raises(NewerFormat, match="more" if "requires" in change else f"format {change['format']}"):
        read({**make(), **change})


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_document_with_anything_in_it_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    make, read = KINDS[kind]
    document = make()
    key = data.draw(st.sampled_from(sorted(document)))
    try:
        read({**document, key: data.draw(values)})
    except ModelRepoError:
        pass


@pytest.mark.parametrize("digest", ["", "ab", "../../x", "g" * 64, "a" * 63, 3, None, ["a" * 64]])
def test_what_a_lease_or_a_mark_holds_must_be_digests(digest: Any) -> None:
    for make, read in (KINDS["lease"], KINDS["mark"]):
        with pytest.raises(Corrupt, match=re.escape(NAME)):
            read({**make(), "digests": [digest], "sizes": [1]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [[{}], [["a"]], {"a": 1}, [None]], ids=repr)
def test_what_is_required_under_no_name_is_refused_all_the_same(kind: str, wanted: Json) -> None:
    make, read = KINDS[kind]
    with pytest.raises(NewerFormat, match="requires"):
        read({**make(), "requires": wanted})


@pytest.mark.parametrize("size", ["7", None, [1], {}, 1.5])
def test_a_mark_says_sizes_in_numbers(size: Json) -> None:
    with pytest.raises(Corrupt, match=re.escape(NAME)):
        read_mark({**a_mark(), "sizes": [size]})


@pytest.mark.parametrize("number", [".inf", "-.inf", "1.5", "true", "[1]", "'1'"])
@pytest.mark.parametrize("key", ["generation", "from"])
def test_an_entry_counts_generations_in_whole_numbers(key: str, number: str) -> None:
    text = yaml_text.dump({name: value for name, value in an_entry().items() if name != key}) + f"{key}: {number}\n"
    with pytest.raises(Corrupt, match=re.escape(NAME)):
        HistoryEntry.from_bytes(text.encode(), NAME)


@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (read_digests, parse_bundle):
        with pytest.raises((Corrupt, NewerFormat)):
            read(NAME, data)
    for from_bytes in (Condemned.from_bytes, HistoryEntry.from_bytes):
        with pytest.raises((Corrupt, NewerFormat)):
            from_bytes(data, NAME)
