"""Two versions' pictures side by side, each under its name."""

from __future__ import annotations

from functools import reduce

from modelrepo_cli.demo import png
from modelrepo_cli.demo.png import Grey

# 5 x 7 letters, a number a row, its highest of five bits on the left.
_LETTERS = {
    "v": (0, 0, 17, 17, 17, 10, 4),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
}
_DOT = 4  # pixels of the picture to a dot of a letter
_PAPER, _INK, _RULE = 255, 60, 190
_MARGIN = 12


def side_by_side(named: dict[str, bytes]) -> bytes:
    """Return one PNG of several 8-bit grey ones of one height, in order. Raises: ValueError."""
    panels = [_panel(name, png.decode(data)) for name, data in named.items()]
    rule = png.blank(2, panels[0].height, _RULE)
    return png.encode(reduce(lambda left, right: png.beside(png.beside(left, rule), right), panels))


def _panel(name: str, picture: Grey) -> Grey:
    side = png.blank(_MARGIN, picture.height)
    body = png.beside(png.beside(side, picture), side)
    return reduce(png.below, (_title(name, body.width), body, png.blank(body.width, _MARGIN)))


def _title(name: str, width: int) -> Grey:
    rows = []
    for line in range(7):
        dots = b"".join(_dots(letter, line) for letter in name)
        row = (bytes([_PAPER]) * _MARGIN + dots).ljust(width, bytes([_PAPER]))[:width]
        rows += [row] * _DOT
    blank = (bytes([_PAPER]) * width,) * _MARGIN
    return Grey(width, len(rows) + 2 * _MARGIN, (*blank, *rows, *blank))


def _dots(letter: str, line: int) -> bytes:
    bits = _LETTERS[letter][line]
    shades = [_INK if bits >> (4 - column) & 1 else _PAPER for column in range(5)] + [_PAPER]
    return b"".join(bytes([shade]) * _DOT for shade in shades)
