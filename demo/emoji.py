"""The subjects as pictures: glyphs of Noto Color Emoji, which Debian has as fonts-noto-color-emoji."""

from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from stages.core.errors import ConfigError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")

_SIZE = 109
"""The only size that the font's bitmaps have."""

GLYPHS = {
    "astronaut": "\U0001f9d1\u200d\U0001f680",
    "robot": "\U0001f916",
    "cat": "\U0001f408",
    "dog": "\U0001f415",
    "princess": "\U0001f478",
    "penguin": "\U0001f427",
    "wizard": "\U0001f9d9",
    "bear": "\U0001f43b",
    "frog": "\U0001f438",
    "monkey": "\U0001f412",
    "horse": "\U0001f40e",
    "unicorn": "\U0001f984",
    "dragon": "\U0001f409",
    "elephant": "\U0001f418",
    "whale": "\U0001f40b",
    "bicycle": "\U0001f6b2",
    "car": "\U0001f697",
    "rocket": "\U0001f680",
    "turtle": "\U0001f422",
    "camel": "\U0001f42b",
    "castle": "\U0001f3f0",
    "tree": "\U0001f333",
    "cactus": "\U0001f335",
    "house": "\U0001f3e0",
    "fish": "\U0001f41f",
    "bird": "\U0001f426",
    "apple": "\U0001f34e",
    "pizza": "\U0001f355",
    "guitar": "\U0001f3b8",
    "sailboat": "\u26f5",
    "balloon": "\U0001f388",
    "flower": "\U0001f33b",
}
"""The astronaut is three characters joined to one glyph, which takes libraqm to lay out."""


@cache
def picture(subject: str) -> Image.Image:
    """The subject, RGBA, cut to what is not transparent. Raises ConfigError if it cannot be drawn here."""
    canvas = Image.new("RGBA", (2 * _SIZE, 2 * _SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((20, 20), GLYPHS[subject], font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ConfigError(f"{FONT} has no glyph for {subject!r}; install Debian's fonts-noto-color-emoji")
    return canvas.crop(box)


@cache
def _font() -> ImageFont.FreeTypeFont:
    if not features.check("raqm"):
        raise ConfigError("Pillow finds no libraqm, which joins the astronaut's glyph: apt-get install libraqm0")
    try:
        return ImageFont.truetype(FONT, _SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise ConfigError(f"{FONT}: {error}; apt-get install fonts-noto-color-emoji") from error
