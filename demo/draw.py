"""Pictures drawn by Triptych itself, many at once, for measuring."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from demo.command import STDERR
from orchestrator.client import Client
from orchestrator.launch import private_pipeline
from stages.core import wire
from stages.core.errors import NoAnswer, by_code

_PATIENCE_S = 600.0
"""How long no picture at all may come before it is given up."""


def draw(model: Path, requests: Sequence[wire.Submit]) -> npt.NDArray[np.uint8]:
    """One picture a request, in their order: [n, height, width, 3]. Raises the error of the first that failed."""
    pictures: dict[str, npt.NDArray[np.uint8]] = {}
    overrides = [f'model.path="{model.resolve()}"', f"pipeline.queue_limit={len(requests)}"]
    with private_pipeline(None, overrides) as pipeline, Client(pipeline.address, _PATIENCE_S) as client:
        for request in requests:
            client.send(request)
        for _ in track(requests, "drawing", console=STDERR):
            name, picture = _next_picture(client)
            pictures[name] = picture
    return np.stack([pictures[request.id] for request in requests])


def _next_picture(client: Client) -> tuple[str, npt.NDArray[np.uint8]]:
    while event := client.receive(_PATIENCE_S):
        message, payload = event
        match message:
            case wire.Image():
                assert payload is not None
                return message.id, np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))
            case wire.Failed():
                raise by_code(message.code)(message.message)
    raise NoAnswer(f"no picture within {_PATIENCE_S:.0f} s; `triptych check` says whether the model can be run")
