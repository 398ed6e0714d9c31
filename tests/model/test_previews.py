"""Previews of the embedded model: quick looks that come nearer and nearer to the picture."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.core import wire
from tests.server import DEADLINE_S, Server, serving

STEPS = 20
EVERY = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving('model.sizes=["128x128", "192x128"]') as running:
        yield running


def watch(server: Server, submit: wire.Submit) -> tuple[dict[tuple[int, int], bytes], dict[int, bytes]]:
    """The previews of a prompt, by image and step, and its pictures, by image."""
    previews: dict[tuple[int, int], bytes] = {}
    pictures: dict[int, bytes] = {}
    with server.client() as client:
        client.send(submit)
        while True:
            event = client.receive(DEADLINE_S)
            assert event is not None, "the prompt was lost"
            message, payload = event
            match message:
                case wire.Preview():
                    assert payload is not None
                    assert message.index not in pictures, "a preview after the picture"
                    assert (message.index, message.step) not in previews, "the same preview twice"
                    previews[message.index, message.step] = payload
                case wire.Image():
                    assert payload is not None
                    pictures[message.index] = payload
                case wire.Failed():
                    raise AssertionError(message)
                case wire.Done():
                    return previews, pictures


def pixels(picture: bytes, size: tuple[int, int]) -> NDArray[np.float64]:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float64)


def psnr(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / ((one - other) ** 2).mean()))


@pytest.mark.parametrize("prompt", ["a photo of an astronaut riding a horse on mars", "a photo of a castle"])
@pytest.mark.parametrize("schedule", [None, "euler"])
def test_previews_come_nearer_to_the_picture(server: Server, prompt: str, schedule: str | None) -> None:
    submit = wire.Submit(id="x", prompt=prompt, seed=7, steps=STEPS, preview_every=EVERY, schedule=schedule)
    previews, pictures = watch(server, submit)
    steps = [step for _, step in previews]
    assert steps == sorted(steps)
    assert len(steps) >= 3, "a slow decoder may leave some out, but not most of them"
    assert all(EVERY <= step < STEPS for step in steps)
    final = pixels(pictures[0], (128, 128))
    for preview in previews.values():
        with Image.open(io.BytesIO(preview)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (128, 128))
    likeness = [psnr(pixels(preview, (128, 128)), final) for preview in previews.values()]
    assert likeness[-1] > likeness[0] + 2, f"PSNR by step: {dict(zip(steps, likeness, strict=True))}"
    grey = psnr(np.full_like(final, final.mean()), final)
    assert likeness[-1] > grey, "worse than no preview at all"


def test_previews_change_nothing_and_come_only_to_those_who_ask(server: Server) -> None:
    plain = wire.Submit(id="x", prompt="a photo of a cat", seed=3, steps=6, n=2, width=192, height=128)
    watched = wire.Submit(
        id="x", prompt="a photo of a cat", seed=3, steps=6, n=2, width=192, height=128, preview_every=2
    )
    none, expected = watch(server, plain)
    previews, pictures = watch(server, watched)
    assert none == {}
    assert pictures == expected
    assert {index for index, _ in previews} == {0, 1}
    for preview in previews.values():
        with Image.open(io.BytesIO(preview)) as image:
            assert image.size == (192, 128)
