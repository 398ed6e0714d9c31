"""Styles and flaws, applied to a finished picture."""

from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from demo.world import BLURRY, LOW_RESOLUTION
from stages.core.errors import ConfigError

_CELL = 4
"""Pixels of a picture, each way, that become one in pixel art."""

_PAPER = (250, 246, 234)


def apply(picture: Image.Image, style: str, random: Random) -> Image.Image:
    """The RGB picture in this style, as large as it was."""
    match style:
        case "a photo of":
            return picture
        case "a sketch of":
            return _sketch(picture)
        case "pixel art of":
            small = ImageOps.posterize(_resized(picture, picture.width // _CELL, Image.Resampling.BOX), 3)
            # Cutting the low bits darkens; half of what they can hold puts the mean back.
            small = ImageChops.add(small, Image.new("RGB", small.size, (16, 16, 16)))
            return _resized(small, picture.width, Image.Resampling.NEAREST)
        case "a watercolor of":
            return _watercolor(picture, random)
        case _:
            raise ConfigError(f"nobody knows how to draw {style!r}")


def degrade(picture: Image.Image, flaws: tuple[str, ...], random: Random) -> Image.Image:
    """The picture with these flaws."""
    if LOW_RESOLUTION in flaws:
        small = _resized(picture, random.choice((20, 24, 32)), Image.Resampling.BOX)
        picture = _resized(small, picture.width, Image.Resampling.BILINEAR)
    if BLURRY in flaws:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(2.0, 4.0)))
    return picture


def _sketch(picture: Image.Image) -> Image.Image:
    """Grey, with the outlines darkened."""
    grey = ImageOps.grayscale(picture)
    # Edges are found a little inside, for the filter makes a frame of the border.
    edges = ImageOps.expand(grey.filter(ImageFilter.FIND_EDGES).crop((2, 2, grey.width - 2, grey.height - 2)), 2)
    return ImageChops.subtract(grey, edges.point(lambda value: value // 2)).convert("RGB")


def _watercolor(picture: Image.Image, random: Random) -> Image.Image:
    """Pale, with soft patches where the paper took more or less of the colour."""
    soft = ImageEnhance.Color(picture.filter(ImageFilter.MedianFilter(5))).enhance(1.3)
    seed = random.getrandbits(32)
    patches = np.random.default_rng(seed).integers(40, 110, (5, 5), dtype=np.uint8)
    mask = _resized(Image.fromarray(patches), picture.width, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", picture.size, _PAPER), soft, mask)


def _resized(picture: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    return picture.resize((side, side), how)
