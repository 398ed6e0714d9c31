"""The places, painted: a sky, mostly a ground, and what makes the place known."""

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from stages.core.errors import ConfigError

SIDE = 128
"""Pixels of a picture, each way."""

Colour = tuple[int, int, int]


def paint(place: str, random: Random) -> tuple[Image.Image, int]:
    """The place, RGB, without anybody in it, and the line (pixels from the top) on which things stand."""
    horizon = round(SIDE * random.uniform(0.58, 0.7))
    shade = random.uniform(0.92, 1.08)
    match place:
        case "on mars":
            picture = _landscape(((92, 52, 40), (186, 112, 78)), ((160, 66, 38), (112, 44, 26)), horizon, shade)
        case "on the moon":
            picture = _landscape(((6, 6, 14), (14, 14, 26)), ((176, 176, 184), (138, 138, 148)), horizon, shade)
            _stars(picture, random, 12, horizon)
        case "in space":
            picture = _gradient(((16, 6, 46), (34, 14, 78)), SIDE, shade)
            _stars(picture, random, 36, SIDE)
        case "in the desert":
            picture = _landscape(((112, 172, 226), (206, 222, 226)), ((222, 188, 122), (202, 164, 96)), horizon, shade)
            _disc(picture, (random.randint(16, SIDE - 16), random.randint(14, 28)), 10, (250, 218, 70))
        case "in a forest":
            picture = _landscape(((150, 206, 236), (196, 226, 236)), ((66, 128, 66), (46, 100, 50)), horizon, shade)
            _firs(picture, random, horizon)
        case "under the sea":
            picture = _gradient(((56, 150, 214), (10, 46, 116)), SIDE, shade)
            for _ in range(random.randint(3, 8)):
                _disc(picture, (random.randrange(SIDE), random.randrange(SIDE)), random.choice((1, 2)), (140, 196, 230))
        case "in the snow":
            picture = _landscape(((178, 198, 222), (214, 222, 234)), ((250, 250, 253), (234, 238, 246)), horizon, shade)
            _flakes(picture, random)
        case "at sunset":
            picture = _gradient(((86, 46, 112), (244, 146, 72)), horizon, shade)
            _disc(picture, (random.randint(14, SIDE - 14), horizon), 15, (254, 212, 92))
            _ground(picture, ((48, 34, 56), (30, 22, 40)), horizon, shade)
        case "on a blue background":
            return Image.new("RGB", (SIDE, SIDE), _shaded((66, 128, 220), shade)), horizon
        case "on a white background":
            return Image.new("RGB", (SIDE, SIDE), _shaded((243, 243, 244), min(shade, 1.03))), horizon
        case _:
            raise ConfigError(f"nobody knows how to paint {place!r}")
    return picture, horizon


def _landscape(sky: tuple[Colour, Colour], ground: tuple[Colour, Colour], horizon: int, shade: float) -> Image.Image:
    picture = _gradient(sky, horizon, shade)
    _ground(picture, ground, horizon, shade)
    return picture


def _gradient(colours: tuple[Colour, Colour], height: int, shade: float) -> Image.Image:
    """A gradient from the first colour at the top to the second at `height` and below."""
    share = np.minimum(np.arange(SIDE) / height, 1.0)[:, np.newaxis]
    top, bottom = (np.array(colour, np.float32) * shade for colour in colours)
    column = np.clip(top + (bottom - top) * share, 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, np.newaxis], SIDE, axis=1))


def _ground(picture: Image.Image, colours: tuple[Colour, Colour], horizon: int, shade: float) -> None:
    below = _gradient(colours, SIDE - horizon, shade)
    picture.paste(below.crop((0, 0, SIDE, SIDE - horizon)), (0, horizon))


def _shaded(colour: Colour, shade: float) -> Colour:
    red, green, blue = (min(255, round(part * shade)) for part in colour)
    return red, green, blue


def _disc(picture: Image.Image, centre: tuple[int, int], radius: int, colour: Colour) -> None:
    x, y = centre
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _stars(picture: Image.Image, random: Random, count: int, height: int) -> None:
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        light = random.randint(130, 255)
        draw.point((random.randrange(SIDE), random.randrange(height)), fill=(light, light, light))


def _flakes(picture: Image.Image, random: Random) -> None:
    for _ in range(random.randint(8, 20)):
        _disc(picture, (random.randrange(SIDE), random.randrange(SIDE)), 1, (255, 255, 255))


def _firs(picture: Image.Image, random: Random, horizon: int) -> None:
    """Dark triangles at both sides, where they stay visible beside the subject."""
    draw = ImageDraw.Draw(picture)
    for left in (-6, 8, SIDE - 24, SIDE - 10):
        x = left + random.randint(-5, 5)
        width, height = random.randint(14, 20), random.randint(28, 46)
        foot = horizon + random.randint(2, 10)
        green = _shaded((26, 88, 52), random.uniform(0.85, 1.15))
        draw.polygon([(x, foot), (x + width, foot), (x + width // 2, foot - height)], fill=green)
