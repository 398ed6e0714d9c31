"""Sizes of pictures as clients ask for them, fitted to those that are served. Pure."""

import math
import re

from orchestrator.gateway.errors import HttpError

MAX_SIDE = 4096
"""Pixels a side that may be asked for."""

_SIZE = re.compile(r"(\d{1,6})[xX](\d{1,6})", re.ASCII)

Size = tuple[int, int]


def parse(text: str) -> Size | None:
    """Read "WxH" in pixels; None for "auto". Raises HttpError."""
    if text == "auto":
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise HttpError(400, f"`size` {text[:40]!r} is no size; write it like 512x512, or auto", "bad_request", "size")
    return check(int(match[1]), int(match[2]))


def check(width: int, height: int) -> Size:
    """Refuse what nobody could mean. Raises HttpError."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise HttpError(400, f"`size` {width}x{height} must be from 1 to {MAX_SIDE} a side", "bad_request", "size")
    return (width, height)


def fit(asked: Size, served: tuple[Size, ...]) -> Size:
    """The size served that is nearest by aspect ratio and by area, in that order of weight."""

    def distance(size: Size) -> float:
        ratio = abs(math.log(size[0] / size[1]) - math.log(asked[0] / asked[1]))
        area = abs(math.log(size[0] * size[1]) - math.log(asked[0] * asked[1]))
        return 2 * ratio + area

    return min(served, key=distance)
