"""Where tensor files are cut: by what they hold, whatever else changes in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo.testing.tensor_files import tensor_bytes
from modelrepo.versions import chunks
from modelrepo.versions.chunks import MIB, PIECE_BYTES, Span, cut, cut_tensors
from modelrepo.versions.tensors import Header, Tensor, read_header

KIB = 1 << 10
SMALL, LARGE = st.integers(0, MIB - 1), st.integers(MIB, 40 * MIB)


def header_of(sizes: Sequence[int], *, header_bytes: int = 1000) -> Header:
    """Lay tensors of these sizes out, without any bytes."""
    tensors, start = [], header_bytes
    for number, size in enumerate(sizes):
        tensors.append(Tensor(f"layers.{number}.weight", "U8", (size,), start, size))
        start += size
    return Header(header_bytes, tuple(tensors))


def parsed(data: bytes) -> Header | None:
    return read_header(len(data), lambda start, length: data[start : start + length])


def assert_covered(spans: Sequence[Span], size_bytes: int) -> None:
    end = 0
    for span in spans:
        assert span.start == end
        assert 0 < span.size_bytes <= 64 * MIB
        end += span.size_bytes
    assert end == size_bytes


@given(st.lists(SMALL | LARGE, max_size=60), st.integers(9, 20 * MIB))
def test_cuts_cover_the_file_in_order(sizes: list[int], header_bytes: int) -> None:
    spans = list(cut_tensors(header_of(sizes, header_bytes=header_bytes)))
    assert_covered(spans, header_bytes + sum(sizes))
    assert all(span.size_bytes <= PIECE_BYTES for span in spans)


@given(st.lists(SMALL | LARGE, min_size=1, max_size=40), st.data())
def test_a_large_tensor_is_cut_the_same_wherever_it_lies(sizes: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sizes) - 1))
    sizes[at] = max(sizes[at], MIB)
    others = [data.draw(SMALL | LARGE) if index != at else size for index, size in enumerate(sizes)]
    one, other = header_of(sizes), header_of(others, header_bytes=data.draw(st.integers(9, 5 * MIB)))

    def cuts(header: Header) -> list[tuple[int, int]]:
        start, end = header.tensors[at].start, header.tensors[at].start + sizes[at]
        spans = [span for span in cut_tensors(header) if span.start < end and span.start + span.size_bytes > start]
        return [(span.start - start, span.size_bytes) for span in spans]

    assert cuts(one) == cuts(other)
    assert cuts(one)[0][0] == 0, "its chunks begin with it"
    assert sum(size for _, size in cuts(one)) == sizes[at], "and end with it"


@pytest.mark.parametrize("at", [0, 700, 1999])
def test_groups_of_small_tensors_stay_where_they_are_when_one_before_them_changes_its_size(at: int) -> None:
    random = Random(1)
    sizes = [random.randrange(4 * KIB, 200 * KIB) for _ in range(2000)]
    grown = [size + (1000 if index == at else 0) for index, size in enumerate(sizes)]

    def groups(header: Header) -> set[tuple[str, ...]]:
        found = []
        for span in list(cut_tensors(header))[1:]:
            inside = [t for t in header.tensors if span.start <= t.start < span.start + span.size_bytes]
            found.append(tuple(f"{tensor.name}:{tensor.size_bytes}" for tensor in inside))
        return set(found)

    before, after = groups(header_of(sizes)), groups(header_of(grown))
    assert len(before) > 20
    assert len(after - before) <= 3


def test_twenty_thousand_small_tensors_are_few_chunks() -> None:
    header = header_of([10 * KIB] * 20_000, header_bytes=2 * MIB)
    spans = list(cut_tensors(header))
    assert_covered(spans, 2 * MIB + 20_000 * 10 * KIB)
    assert len(spans) <= 20_000 * 10 * KIB // (2 * MIB)


def test_small_neighbours_share_a_chunk_and_large_ones_do_not() -> None:
    header = header_of([5 * KIB, 6 * KIB, 2 * MIB, 7 * KIB, 40 * MIB, 1 * MIB, 3 * KIB])
    sizes = [span.size_bytes for span in cut_tensors(header)]
    pieces = [16 * MIB, 16 * MIB, 8 * MIB]
    assert sizes == [1000, 11 * KIB, 2 * MIB, 7 * KIB, *pieces, 1 * MIB, 3 * KIB]


def test_a_small_file_of_small_tensors_is_one_chunk() -> None:
    header = header_of([30 * KIB] * 100)
    assert list(cut_tensors(header)) == [Span(0, 1000 + 3000 * KIB)]


def test_a_header_that_is_right_is_read() -> None:
    data = tensor_bytes({"a": b"12345678", "b": b""}, dtype="F32", shapes={"a": (2, 1)}, pad=5)
    found = parsed(data)
    assert found is not None
    start = found.size_bytes
    assert {tensor.name: tensor for tensor in found.tensors} == {
        "a": Tensor("a", "F32", (2, 1), start, 8),
        "b": Tensor("b", "F32", (0,), start + 8, 0),
    }
    assert data[start : start + 8] == b"12345678"


def entry(begin: object, end: object, **more: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [1], "data_offsets": [begin, end], **more}


@pytest.mark.parametrize(
    "entries",
    [
        {"a": entry(0, 4), "b": entry(3, 8)},
        {"a": entry(0, 3), "b": entry(4, 8)},
        {"a": entry(1, 8)},
        {"a": entry(0, 7)},
        {"a": entry(0, 9)},
        {"a": entry(0, 8), "b": entry(0, 8)},
        {"a": entry(8, 0)},
        {"a": entry(-8, 8)},
        {"a": entry(0, 8.0)},
        {"a": entry(False, 8)},
        {"a": entry(0, 10**30)},
        {"a": entry(0, 8, shape="8")},
        {"a": entry(0, 8, shape=[-1])},
        {"a": entry(0, 8, dtype=8)},
        {"a": {"dtype": "U8", "shape": [8]}},
        {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 4, 8]}},
        {"a": None},
        {"\ud800": entry(0, 8)},
        ["a"],
        "a",
        7,
        None,
        {},
    ],
)
def test_a_header_that_does_not_add_up_makes_a_file_mere_bytes(entries: object) -> None:
    text = json.dumps(entries).encode()
    assert parsed(len(text).to_bytes(8, "little") + text + b"12345678") is None


def test_tensors_may_be_listed_in_any_order() -> None:
    text = json.dumps({"b": entry(4, 8), "a": entry(0, 4), "z": entry(4, 4)}).encode()
    found = parsed(len(text).to_bytes(8, "little") + text + b"12345678")
    assert found is not None
    assert [tensor.name for tensor in found.tensors] == ["a", "z", "b"]


@pytest.mark.parametrize("length", [0, 1, 5, 7, 8, 9, 100, 1 << 31, (1 << 64) - 1])
def test_a_length_that_lies_is_not_believed(length: int) -> None:
    for rest in (b"", b"{", b"{}", b'{"a":' + b"[" * 90):
        assert parsed(length.to_bytes(8, "little") + rest) is None


def test_a_header_deeper_than_any_stack_is_not_followed() -> None:
    text = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert parsed(len(text).to_bytes(8, "little") + text) is None


@given(
    st.binary(max_size=300) | st.builds(lambda text: len(text).to_bytes(8, "little") + text, st.binary(max_size=300))
)
def test_no_bytes_at_all_are_too_odd_to_be_cut(data: bytes) -> None:
    header = parsed(data)
    assert_covered(list(cut(len(data)) if header is None else cut_tensors(header)), len(data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {"dtype": st.just("U8") | json_values, "shape": st.lists(st.integers(0, 9)) | json_values},
    optional={"data_offsets": st.tuples(st.integers(-1, 40), st.integers(0, 40)) | json_values},
)


@given(st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4), st.binary(max_size=40))
def test_whatever_a_header_says_the_file_is_covered(said: dict[str, object], rest: bytes) -> None:
    text = json.dumps(said).encode()
    data = len(text).to_bytes(8, "little") + text + rest
    header = parsed(data)
    assert_covered(list(cut(len(data)) if header is None else cut_tensors(header)), len(data))


def test_a_changed_tensor_and_a_grown_header_cost_no_more_than_they_are() -> None:
    random = Random(2)
    tensors = {f"layers.{number}": random.randbytes(MIB + 64 * number) for number in range(16)}
    changed = {**tensors, "layers.3": random.randbytes(len(tensors["layers.3"]))}

    def objects(data: bytes) -> dict[str, int]:
        header = parsed(data)
        assert header is not None
        parts = [data[span.start : span.start + span.size_bytes] for span in cut_tensors(header)]
        return {hashlib.sha256(part).hexdigest(): len(part) for part in parts}

    before, after = objects(tensor_bytes(tensors)), objects(tensor_bytes(changed, pad=3333))
    sent = sum(size for digest, size in after.items() if digest not in before)
    assert sent <= 1.05 * len(tensors["layers.3"])


def test_the_rule_has_a_name_that_changes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = chunks.cutting_rule("a.safetensors")
    assert before == chunks.cutting_rule("b.SAFETENSORS") != chunks.cutting_rule("a.bin")
    monkeypatch.setattr(chunks, "PIECE_BYTES", 8 * MIB)
    assert chunks.cutting_rule("a.safetensors") != before
