"""The reader's half that needs no torch; with torch it is tested where an environment has one."""

import json
import struct
from pathlib import Path

import pytest

from modelrepo_runtime.child.tensors import read_header


def write(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def test_a_header_is_read_without_its_metadata(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    assert read_header(write(tmp_path / "x", text, bytes(8))) == ({"a": header["a"]}, 8 + len(text))


@pytest.mark.parametrize("length", [0, 100, 1 << 60])
def test_a_length_that_cannot_be_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="no safetensors file"):
        read_header(write(tmp_path / "x", b"{}", length=length))


def test_a_file_of_a_few_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_header(tmp_path / "x")
