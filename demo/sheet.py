"""Many pictures as one, each above its caption."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

_GAP = 6
_LINES = 3
_LINE = 12
"""Pixels of a line of Pillow's own small font."""


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 8) -> Image.Image:
    """All pictures, which must be of one size, row by row."""
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = (width + _GAP, height + _LINES * _LINE + _GAP)
    canvas = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        corner = (_GAP + number % columns * step[0], _GAP + number // columns * step[1])
        canvas.paste(picture, corner)
        lines = textwrap.wrap(caption, max(8, width // 6))[:_LINES]
        draw.text((corner[0], corner[1] + height), "\n".join(lines), fill="black", spacing=0)
    return canvas
