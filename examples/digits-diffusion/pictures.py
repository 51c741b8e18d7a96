"""Digits side by side, as a PNG or an animated GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = 10
ENLARGED = 3  # screen pixels to a pixel of the decoder
GREYS = 8  # of an animation: noise hardly compresses, and eight are enough for ink on paper
FRAME_MS, LAST_FRAME_MS = 80, 1500


def write_sheet(path: Path, digits: np.ndarray) -> None:
    """Write digits (n x side x side, 0 paper to 1 ink), at most COLUMNS a row, as a PNG."""
    _sheet(digits).save(path, format="PNG")


def write_gif(path: Path, frames: Sequence[np.ndarray]) -> None:
    """Write the same sheet at several moments as an animation that rests on its last frame."""
    first, *others = [_sheet(frame).quantize(GREYS) for frame in frames]
    times = [FRAME_MS] * len(others) + [LAST_FRAME_MS]
    first.save(path, format="GIF", save_all=True, append_images=others, duration=times, loop=0)


def _sheet(digits: np.ndarray) -> Image.Image:
    rows = -(-len(digits) // COLUMNS)
    columns = min(len(digits), COLUMNS)
    side = digits.shape[-1]
    sheet = np.zeros((rows * columns, side, side), dtype=np.float32)
    sheet[: len(digits)] = digits
    sheet = sheet.reshape(rows, columns, side, side).transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
    grey = (255 * (1 - sheet.clip(0, 1))).round().astype(np.uint8)
    picture = Image.fromarray(grey)
    return picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.BICUBIC)
