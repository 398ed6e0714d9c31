"""The same pictures by Triptych: a real `triptych serve` with its three processes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.core import wire
from tests.parity.ask import Ask
from tests.parity.peers import Pixels
from tests.server import run, serving


def triptych(folder: Path, precision: str, asks: Sequence[Ask]) -> list[Pixels]:
    """One picture an ask, each alone in the pipeline."""
    with serving(*overrides(folder, precision, asks)) as server, server.client() as client:
        outcomes = [run(client, [submit(ask)]) for ask in asks]
    for outcome in outcomes:
        assert not outcome.failed(), outcome.failed()
    return [pixels(outcome.images["x", 0]) for outcome in outcomes]


def overrides(folder: Path, precision: str, asks: Sequence[Ask]) -> list[str]:
    """What makes a server serve these asks."""
    sizes = dict.fromkeys(f'"{ask.width}x{ask.height}"' for ask in asks)
    return [f"model.path={folder}", f"model.precision={precision}", f"model.sizes=[{', '.join(sizes)}]"]


def submit(ask: Ask, id: str = "x") -> wire.Submit:
    return wire.Submit(
        id=id,
        prompt=ask.prompt,
        negative_prompt=ask.negative_prompt,
        steps=ask.steps,
        guidance_scale=ask.guidance_scale,
        guidance_rescale=ask.guidance_rescale,
        clip_skip=ask.clip_skip,
        seed=ask.seed,
        width=ask.width,
        height=ask.height,
        schedule=ask.schedule,
        trace=True,
    )


def pixels(picture: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
