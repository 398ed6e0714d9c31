import io
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from orchestrator.plan import plan
from orchestrator.routing.request import MAX_PROMPT, resolve
from stages.core.config import Config
from stages.core.wire import Format, Submit
from stages.vae.picture import encode
from tests.unit.cards import CARD, machine

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
TEXTS = {
    "plain": 'a cat, "quoted"\nNegative prompt: a dog\nSteps: 20, Sampler: ddim',
    "unicode": "Grüße aus Köln, 猫 \N{GRINNING FACE} \u2028\nSteps: 20",
    "latin-1": "Grüße",
    "long": "a cat " * 2000,
    "empty": "",
    "odd": "a\x01\x7f\r\tb",
}


def pixels(height: int = 24, width: int = 16) -> NDArray[np.uint8]:
    """A smooth ramp, which survives lossy formats."""
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 7)
    return np.stack([ramp, 255 - ramp, ramp // 2], axis=-1).astype(np.uint8)


def decode(file: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = Image.open(io.BytesIO(file))
        image.load()
    return image


def comment(image: Image.Image) -> str:
    raw = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert raw.startswith(b"UNICODE\0")
    return str(raw.removeprefix(b"UNICODE\0").decode("utf-16-be"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_is_of_its_format_and_size(format: Format) -> None:
    image = decode(encode(pixels(24, 16), format, {}))
    assert (image.format, image.mode, image.size) == (format.upper(), "RGB", (16, 24))


def test_png_keeps_every_pixel() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 16, 3), np.uint8)
    assert np.array_equal(np.asarray(decode(encode(noise, "png", {}))), noise)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_the_others_are_close(format: Format) -> None:
    found = np.asarray(decode(encode(pixels(), format, {}))).astype(int)
    assert np.abs(found - pixels()).mean() < 4


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_png_carries_each_entry_as_a_chunk(text: str) -> None:
    image = decode(encode(pixels(), "png", {"parameters": text, "triptych": "{}"}))
    assert image.text == {"parameters": text, "triptych": "{}"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_the_others_carry_the_parameters_as_the_exif_user_comment(format: Format, text: str) -> None:
    assert comment(decode(encode(pixels(), format, {"parameters": text, "triptych": "{}"}))) == text


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_picture_is_the_same_bytes(format: Format) -> None:
    one, two = (encode(pixels(), format, {"parameters": TEXTS["unicode"]}) for _ in range(2))
    assert one == two
    assert one != encode(pixels(), format, {"parameters": "another"})
    assert one != encode(255 - pixels(), format, {"parameters": TEXTS["unicode"]})


def longest(prompt: str, format: Format) -> bytes:
    """The file of noise, which compresses least, with this text for both prompts; it must fit into its slot."""
    found = plan(Config(), CARD, machine(2))
    submit = Submit(id="a", prompt=prompt, negative_prompt=prompt, output_format=format)
    [request] = resolve(submit, CARD, found.sizes, 1)
    width, height = CARD.native
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    file = encode(noise, format, request.metadata(CARD))
    assert len(file) <= next(pool.slot_bytes for pool in found.pools if pool.name == "image")
    return file


@pytest.mark.parametrize("character", ["x", '"', "\x01", "é", "猫", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_file_with_the_longest_prompts_fits_into_its_slot(format: Format, character: str) -> None:
    assert decode(longest(character * MAX_PROMPT, format)).size == CARD.native


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_prompt_of_few_tokens_becomes_a_picture(format: Format) -> None:
    """Nothing else stands in its way: blanks are no tokens, so no stage before this one refuses it."""
    assert decode(longest("a cat".ljust(MAX_PROMPT), format)).size == CARD.native
