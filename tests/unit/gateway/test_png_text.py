import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from orchestrator.gateway import png_text

PARAMETERS = (
    "a fox, red: very\nin the snow\nNegative prompt: blurry\n"
    'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Model: demo, Note: "a, b", Clip skip: 2'
)


def _png(info: PngInfo) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "png", pnginfo=info)
    return file.getvalue()


def test_all_kinds_of_text_chunks_are_read() -> None:
    info = PngInfo()
    info.add_text("plain", "caf\u00e9")
    info.add_text("packed", "b" * 500, zip=True)
    info.add_itxt("world", "狐")
    info.add_itxt("packed world", "狐" * 500, zip=True)
    expected = {"plain": "caf\u00e9", "packed": "b" * 500, "world": "狐", "packed world": "狐" * 500}
    assert png_text.read(_png(info)) == expected


def test_no_more_text_is_unpacked_than_is_allowed() -> None:
    info = PngInfo()
    info.add_text("bomb", "x" * (8 << 20), zip=True)
    info.add_text("after", "y")
    file = _png(info)
    assert len(file) < 100_000
    assert {name: len(text) for name, text in png_text.read(file).items()} == {"bomb": 1 << 20}


def test_broken_files_end_the_reading_and_raise_nothing() -> None:
    info = PngInfo()
    info.add_text("parameters", "a fox", zip=True)
    info.add_itxt("other", "b", zip=True)
    file = _png(info)
    for cut in range(len(file)):
        png_text.read(file[:cut])
        png_text.read(file[:cut] + b"\xff" + file[cut + 1 :])
    assert png_text.read(b"GIF89a") == {}
    broken = png_text.SIGNATURE + (7).to_bytes(4) + b"zTXt" + b"a\0\0junk" + b"\0\0\0\0"
    assert png_text.read(broken) == {}


def test_parameters_are_taken_apart() -> None:
    assert png_text.parameters(PARAMETERS) == {
        "Prompt": "a fox, red: very\nin the snow",
        "Negative prompt": "blurry",
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Seed": "5",
        "Size": "512x768",
        "Size-1": "512",
        "Size-2": "768",
        "Model": "demo",
        "Note": "a, b",
        "Clip skip": "2",
    }


def test_a_text_without_fields_is_a_prompt() -> None:
    assert png_text.parameters("a fox: red,\nor so") == {"Prompt": "a fox: red,\nor so", "Negative prompt": ""}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("unit", [" ", "a", "a:", 'a:"', 'a:"\\', ",", "a:\n", 'a:"\\",'])
def test_no_text_takes_long(unit: str) -> None:
    png_text.parameters("Steps: 1" + unit * (1 << 20) + ".")
