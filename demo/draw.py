"""Pictures drawn by Triptych itself, many at once, for measuring."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from demo.command import STDERR
from orchestrator.client import Prompt, own_pipeline
from stages.core import wire


def draw(model: Path, requests: Sequence[wire.Submit]) -> npt.NDArray[np.uint8]:
    """One picture a request, in their order: [n, height, width, 3]. Raises the error of the first that failed."""
    overrides = [f'model.path="{model.resolve()}"', f"pipeline.queue_limit={len(requests)}"]
    with own_pipeline(None, overrides) as client:
        prompts = [client.submit(request) for request in requests]
        return np.stack([_picture(prompt) for prompt in track(prompts, "drawing", console=STDERR)])


def _picture(prompt: Prompt) -> npt.NDArray[np.uint8]:
    (encoded,) = [payload for message, payload in prompt if isinstance(message, wire.Image)]
    assert encoded is not None
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
