"""The reader's half that needs no torch; with torch it is tested where an environment has one."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.child.shards import shards_of
from modelrepo_runtime.child.shared_files import SharedFile
from modelrepo_runtime.child.tensor_headers import Entry, read_header


def write(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def read(path: Path) -> dict[str, Entry]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_header(descriptor, path)
    finally:
        os.close(descriptor)


def tensor(begin: Any, end: Any, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_a_header_is_read_without_its_metadata(tmp_path: Path) -> None:
    text = json.dumps({"__metadata__": {"format": "pt"}, "a": tensor(0, 8)}).encode()
    found = read(write(tmp_path / "x", text, bytes(8)))
    assert list(found) == ["a"]
    assert (found["a"].dtype, found["a"].shape) == ("F32", (2,))
    assert (found["a"].first, found["a"].last) == (8 + len(text), 16 + len(text))


@pytest.mark.parametrize("length", [0, 100, 1 << 60])
def test_a_length_that_cannot_be_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="no safetensors file"):
        read(write(tmp_path / "x", b"{}", length=length))


def test_a_file_of_a_few_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(ValueError, match="no safetensors file"):
        read(tmp_path / "x")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, "'b' overlaps"),
        ({"a": tensor(0, 8), "b": tensor(0, 8)}, "overlaps"),
        ({"a": tensor(4, 12)}, "'a' leaves a gap"),
        ({"a": tensor(0, 8), "b": tensor(8, 24, shape=(4,))}, "cut short"),
        ({"a": tensor(0, 8)}, "cut short or added to"),
        ({"a": tensor(8, 0)}, "does not fit"),
        ({"a": tensor(0, 12)}, "does not fit"),
        ({"a": tensor(0, 8, shape=(2**62, 2**62))}, "does not fit"),
        ({"a": tensor(0, 16, shape=(-2, -2))}, "not described"),
        ({"a": tensor(-8, 0)}, "not described"),
        ({"a": tensor(0, 8, shape=(True, 2))}, "not described"),
        ({"a": tensor(0.0, 8)}, "not described"),
        ({"a": tensor(0, 8, dtype="Q4_K")}, "Q4_K"),
        ({"a": tensor(0, 8, dtype=["F32"])}, "type"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "not described"),
        ({"a": [1, 2]}, "not described"),
    ],
)
def test_a_hostile_header_is_refused_by_file_and_tensor(tmp_path: Path, tensors: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        read(write(tmp_path / "x", json.dumps(tensors).encode(), bytes(16)))
    assert str(tmp_path / "x") in str(raised.value)


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff\xff", b"[" * 100_000, b'{"a": 1, "a": 2}'])
def test_what_is_no_header_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ValueError, match="no safetensors file"):
        read(write(tmp_path / "x", text))


def test_without_an_index_all_files_of_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    for name in ("b.safetensors", "a.safetensors", "part/c.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    assert shards_of(tmp_path) == [
        (tmp_path / name, None) for name in ("a.safetensors", "b.safetensors", "part/c.safetensors")
    ]
    assert shards_of(tmp_path / "a.safetensors") == [(tmp_path / "a.safetensors", None)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \.safetensors file"):
        shards_of(tmp_path / "empty")
    with pytest.raises(FileNotFoundError), SharedFile(tmp_path / "none"):
        pass


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_an_index_says_which_files_count_and_what_they_hold(tmp_path: Path) -> None:
    for name in ("1.safetensors", "2.safetensors", "consolidated.safetensors"):
        (tmp_path / name).touch()
    index(tmp_path, {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"})
    assert shards_of(tmp_path) == [
        (tmp_path / "1.safetensors", frozenset({"b"})),
        (tmp_path / "2.safetensors", frozenset({"a", "c"})),
    ]
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"2.safetensors is missing: .* holds 2 tensors, 'a'"):
        shards_of(tmp_path)


def test_an_index_without_any_file_is_no_empty_checkpoint(tmp_path: Path) -> None:
    index(tmp_path, {"a": "1.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"1.safetensors is missing"):
        shards_of(tmp_path)


@pytest.mark.parametrize("weight_map", [{"a": "../1.safetensors"}, {"a": ""}, {"a": 1}, ["a"], None])
def test_an_index_that_names_no_files_beside_it_is_refused(tmp_path: Path, weight_map: Any) -> None:
    index(tmp_path, weight_map)
    with pytest.raises(ValueError, match="no index of shards"):
        shards_of(tmp_path)


def test_two_indexes_in_one_folder_are_a_question(tmp_path: Path) -> None:
    index(tmp_path, {})
    index(tmp_path, {}, "model.fp16.safetensors.index.json")
    with pytest.raises(ValueError, match="several indexes"):
        shards_of(tmp_path)


def test_an_entry_of_the_pool_is_used_and_kept_locked_by_its_map(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    (tmp_path / "pool").write_bytes(b"pool")
    found = (tmp_path / "pool").stat()
    with SharedFile(tmp_path / "disk", (str(tmp_path / "pool"), found.st_size, found.st_mtime_ns)) as file:
        view = file.map()
    assert file.in_pool
    assert view[:] == b"pool"
    with (tmp_path / "pool").open("rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        view.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("how", ["gone", "another size", "another time"])
def test_an_entry_that_is_not_as_it_was_is_left_for_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    (tmp_path / "pool").write_bytes(b"pool")
    found = (tmp_path / "pool").stat()
    if how == "gone":
        (tmp_path / "pool").unlink()
    size, time_ns = found.st_size + (how == "another size"), found.st_mtime_ns + (how == "another time")
    with SharedFile(tmp_path / "disk", (str(tmp_path / "pool"), size, time_ns)) as file:
        assert not file.in_pool
        view = memoryview(bytearray(4))
        file.read_into(view, 0)
        with pytest.raises(EOFError, match="ends at byte 4"):
            file.read_into(view, 4)
    assert bytes(view) == b"disk"
    assert "is read from the disk" in capsys.readouterr().err
