"""Which tensors differ is told from headers and digests, and from bytes only where that is not enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from modelrepo import layout
from modelrepo.publication.publish import Publication, publish
from modelrepo.stores.faults import faulty
from modelrepo.stores.memory import MemoryStore
from modelrepo.testing.tensor_files import tensor_bytes
from modelrepo.versions import chunks, tensor_diff
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.tensor_diff import TensorFacts, compare_tensors

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]
Publish = Callable[[Mapping[str, bytes]], Manifest]

KIB = 1 << 10
RANDOM = Random(3)
LARGE, OTHER, THIRD = (RANDOM.randbytes(40 * KIB) for _ in range(3))
SMALL = {f"norm.{number}": RANDOM.randbytes(100) for number in range(6)}


@pytest.fixture(autouse=True)
def small_tensors_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "OWN_CHUNKS_FROM_BYTES", 10 * KIB)
    monkeypatch.setattr(chunks, "PIECE_BYTES", 16 * KIB)


@pytest.fixture
def put(store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft) -> Publish:
    made = 0

    def make(files: Mapping[str, bytes]) -> Manifest:
        nonlocal made
        made += 1
        named = {f"w/{name}": data for name, data in files.items()}
        return publish(
            store, make_draft(make_folder(at=f"m{made}", spec="checkpoints: {w: w}\n", files=named))
        ).manifest

    return make


def changes(store: MemoryStore, old: Manifest, new: Manifest) -> list[tuple[str, str]]:
    return [(change.name, change.kind) for change in compare_tensors(store, old, new)]


def test_tensors_added_removed_and_changed_are_named(store: MemoryStore, put: Publish) -> None:
    one = put({"m.safetensors": tensor_bytes({"a": LARGE, "b": OTHER, "c": LARGE, **SMALL})})
    grown = {"a": LARGE, "b": THIRD, "d": OTHER, **SMALL, "norm.2": bytes(100)}
    two = put({"m.safetensors": tensor_bytes(grown, pad=500)})
    assert changes(store, one, two) == [("b", "changed"), ("c", "removed"), ("d", "added"), ("norm.2", "changed")]
    first = compare_tensors(store, one, two)[0]
    assert (first.checkpoint, first.before, first.after) == ("w", *[TensorFacts("U8", (40 * KIB,), 40 * KIB)] * 2)
    assert changes(store, one, one) == []


def test_a_tensor_that_only_moved_to_another_file_is_the_same(store: MemoryStore, put: Publish) -> None:
    one = put({"1.safetensors": tensor_bytes({"a": LARGE, "b": OTHER}), "2.safetensors": tensor_bytes({"c": THIRD})})
    two = put({"1.safetensors": tensor_bytes({"a": LARGE}), "2.safetensors": tensor_bytes({"b": OTHER, "c": THIRD})})
    assert changes(store, one, two) == []


def test_a_shape_or_dtype_that_differs_is_a_change(store: MemoryStore, put: Publish) -> None:
    one = put({"m.safetensors": tensor_bytes({"a": LARGE}, shapes={"a": (40, KIB)})})
    two = put({"m.safetensors": tensor_bytes({"a": LARGE}, dtype="F32")})
    (change,) = compare_tensors(store, one, two)
    assert change.before == TensorFacts("U8", (40, KIB), 40 * KIB)
    assert change.after == TensorFacts("F32", (10 * KIB,), 40 * KIB)


def test_large_tensors_are_told_apart_without_reading_them(store: MemoryStore, put: Publish) -> None:
    filler = {f"x.{number}": RANDOM.randbytes(64 * KIB) for number in range(8)}
    one = put({"m.safetensors": tensor_bytes({"a": LARGE, **filler})})
    two = put({"m.safetensors": tensor_bytes({"a": OTHER, **filler})})
    seen = faulty(store)
    assert [change.name for change in compare_tensors(seen, one, two)] == ["a"]
    touched = {key for _, key in seen.operations}
    assert len(touched) < len({layout.object_(chunk) for chunk in one.objects() | two.objects()})


def test_files_cut_by_another_rule_are_compared_by_their_bytes_up_to_a_limit(
    store: MemoryStore, put: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put({"m.safetensors": tensor_bytes({"a": LARGE, "b": OTHER})})
    monkeypatch.setattr(chunks, "PIECE_BYTES", 7 * KIB)
    two = put({"m.safetensors": tensor_bytes({"a": LARGE, "b": THIRD}, pad=64)})
    assert changes(store, one, two) == [("b", "changed")]
    monkeypatch.setattr(tensor_diff, "MOST_READ_BYTES", 100 * KIB)
    assert changes(store, one, two) == [("b", "perhaps")]


def test_a_file_without_a_header_has_no_tensors(store: MemoryStore, put: Publish) -> None:
    odd = (2).to_bytes(8, "little")
    one, two = put({"m.safetensors": odd + b"x" * 50}), put({"m.safetensors": odd + b"y" * 50})
    assert changes(store, one, two) == []
    assert changes(store, one, put({"m.bin": b"z"})) == []
