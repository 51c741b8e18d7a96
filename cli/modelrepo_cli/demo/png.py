"""Grey PNG pictures, read and written with the standard library: the command line has no imaging package.

Chunks, filters and the predictor: W3C "Portable Network Graphics (PNG) Specification", third edition, sections 5, 9
and 11.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0, 0, 0, 0)  # bit depth, colour type, compression, filter method, not interlaced
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)


@dataclass(frozen=True, slots=True)
class Grey:
    """A picture of one byte a pixel, 0 black to 255 white, rows from the top."""

    width: int
    height: int
    rows: tuple[bytes, ...]


def blank(width: int, height: int, shade: int = 255) -> Grey:
    """Return a picture of one shade."""
    return Grey(width, height, (bytes([shade]) * width,) * height)


def beside(left: Grey, right: Grey) -> Grey:
    """Put two pictures of one height side by side. Raises: ValueError."""
    if left.height != right.height:
        raise ValueError(f"pictures of {left.height} and {right.height} rows do not fit side by side")
    rows = tuple(a + b for a, b in zip(left.rows, right.rows, strict=True))
    return Grey(left.width + right.width, left.height, rows)


def below(top: Grey, bottom: Grey) -> Grey:
    """Put one picture under another of the same width. Raises: ValueError."""
    if top.width != bottom.width:
        raise ValueError(f"pictures of {top.width} and {bottom.width} columns do not fit one under the other")
    return Grey(top.width, top.height + bottom.height, top.rows + bottom.rows)


def decode(data: bytes) -> Grey:
    """Read an 8-bit grey PNG. Raises: ValueError for any other kind, and for damage."""
    if data[:8] != SIGNATURE:
        raise ValueError("no PNG: the signature is missing")
    header, packed, at = b"", bytearray(), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if zlib.crc32(kind + body) != int.from_bytes(data[at + 8 + length : at + 12 + length], "big"):
            raise ValueError(f"the PNG is damaged: chunk {kind!r} does not answer to its checksum")
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    if len(header) != 13:
        raise ValueError("the PNG is damaged: it has no header")
    width, height, *form = struct.unpack(">IIBBBBB", header)
    if tuple(form) != _GREY_8_BIT:
        raise ValueError(f"the PNG is of another kind than 8-bit grey: {form}")
    try:
        lines = zlib.decompress(bytes(packed))
    except zlib.error as error:
        raise ValueError(f"the PNG is damaged: {error}") from None
    if len(lines) != height * (width + 1):
        raise ValueError(f"the PNG is damaged: {len(lines)} bytes for {height} rows of {width}")
    rows: list[bytes] = []
    above = bytes(width)
    for start in range(0, len(lines), width + 1):
        above = _unfilter(lines[start], lines[start + 1 : start + 1 + width], above)
        rows.append(above)
    return Grey(width, height, tuple(rows))


def encode(picture: Grey) -> bytes:
    """Write an 8-bit grey PNG."""
    header = struct.pack(">IIBBBBB", picture.width, picture.height, *_GREY_8_BIT)
    lines = b"".join(b"\x00" + row for row in picture.rows)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unfilter(kind: int, line: bytes, above: bytes) -> bytes:
    if kind == _NONE:
        return line
    row = bytearray(line)
    left = corner = 0
    for index, value in enumerate(line):
        up = above[index]
        if kind == _SUB:
            guess = left
        elif kind == _UP:
            guess = up
        elif kind == _AVERAGE:
            guess = (left + up) // 2
        elif kind == _PAETH:
            guess = _paeth(left, up, corner)
        else:
            raise ValueError(f"the PNG is damaged: there is no filter {kind}")
        row[index] = left = (value + guess) & 255
        corner = up
    return bytes(row)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
