"""Grey pictures survive every filter that the format has, and damage is told."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from modelrepo_cli.demo import png


def noise(width: int, height: int, seed: int = 1) -> png.Grey:
    dice = random.Random(seed)
    return png.Grey(width, height, tuple(dice.randbytes(width) for _ in range(height)))


def filtered(picture: png.Grey, kind: int) -> bytes:
    """Write a PNG whose every row has one filter, as an independent encoder would."""
    lines = bytearray()
    above = bytes(picture.width)
    for row in picture.rows:
        lines.append(kind)
        for index, value in enumerate(row):
            left = row[index - 1] if index else 0
            corner = above[index - 1] if index else 0
            up = above[index]
            base = left + up - corner
            nearest = min((left, up, corner), key=lambda guess: abs(base - guess))
            lines.append((value - (0, left, up, (left + up) // 2, nearest)[kind]) & 255)
        above = row
    whole = png.encode(picture)
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    body = zlib.compress(bytes(lines))
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return whole[:start] + chunk + whole[start + 12 + length :]


@pytest.mark.parametrize("kind", range(5))
def test_a_picture_is_read_whatever_filter_wrote_it(kind: int) -> None:
    picture = noise(17, 9)
    assert png.decode(filtered(picture, kind)) == picture


def test_what_was_written_is_read_back() -> None:
    assert png.decode(png.encode(noise(5, 3))) == noise(5, 3)


def test_a_changed_byte_is_told() -> None:
    data = bytearray(png.encode(noise(5, 3)))
    data[-20] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        png.decode(bytes(data))


def test_a_picture_cut_short_is_told() -> None:
    with pytest.raises(ValueError, match="damaged"):
        png.decode(png.encode(noise(5, 3))[:30])


def test_other_bytes_are_no_picture() -> None:
    with pytest.raises(ValueError, match="signature"):
        png.decode(b"GIF89a")


def test_pictures_are_put_side_by_side_and_one_under_the_other() -> None:
    left, right = png.blank(2, 3, 10), png.blank(4, 3, 20)
    both = png.beside(left, right)
    assert (both.width, both.height, both.rows[0]) == (6, 3, bytes([10, 10, 20, 20, 20, 20]))
    assert png.below(both, both).height == 6
    with pytest.raises(ValueError, match="side by side"):
        png.beside(left, png.blank(2, 4))
    with pytest.raises(ValueError, match="under"):
        png.below(left, right)
