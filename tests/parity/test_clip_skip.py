"""Prompt embeds without the last layers of the text encoder, against diffusers.

The embedded model and the tiny ones have layers of random or of trained weights, final norms with and without a scale.
"""

import diffusers
import numpy as np
import pytest
import torch

from stages.core.errors import BadRequest
from stages.core.model import demo_folder
from tests.parity.embedded import embedded_pipeline
from tests.parity.export import Workshop
from tests.parity.families import FAMILIES
from tests.parity.text_stage import Encoder

LIMIT = 1e-4
PROMPT, NEGATIVE = "a photo of an astronaut riding a horse on mars", "low resolution, blurry"

Pair = tuple[Encoder, diffusers.DiffusionPipeline]


@pytest.fixture(scope="module")
def embedded() -> Pair:
    return Encoder(demo_folder()), embedded_pipeline()


@pytest.fixture(scope="module", params=["sd15-older", "sdxl"])
def exported(request: pytest.FixtureRequest, workshop: Workshop) -> Pair:
    family = FAMILIES[request.param]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(workshop.torch_folder(family), local_files_only=True)
    return Encoder(workshop.openvino_folder(family)), pipeline


def by_diffusers(pipeline: diffusers.DiffusionPipeline, negative: str, clip_skip: int | None) -> list[np.ndarray]:
    """Embeds [2, 77, dim], the negative prompt first, and with two encoders the pooled ones [2, dim]."""
    with torch.no_grad():
        found = pipeline.encode_prompt(
            PROMPT,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=negative,
            clip_skip=clip_skip,
        )
    pairs = zip(found[1::2], found[::2], strict=True)
    return [torch.cat(pair).numpy() for pair in pairs]


def compare(pair: Pair, clip_skip: int) -> None:
    encoder, pipeline = pair
    ours = encoder.encode(NEGATIVE, PROMPT, clip_skip=clip_skip)
    for mine, theirs in zip(ours, by_diffusers(pipeline, NEGATIVE, clip_skip or None), strict=False):
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() < LIMIT


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_the_embedded_model(clip_skip: int, embedded: Pair) -> None:
    compare(embedded, clip_skip)


def test_more_layers_than_there_are_cannot_be_skipped(embedded: Pair) -> None:
    with pytest.raises(BadRequest, match=r"from 0 to 2 with this model, not 3"):
        embedded[0].encode(NEGATIVE, PROMPT, clip_skip=3)


def test_in_a1111_syntax_both_prompts_skip(embedded: Pair) -> None:
    """As in the web UI, where it is a setting of the model; diffusers never skips layers of the negative prompt."""
    encoder, pipeline = embedded
    [embeds] = by_diffusers(pipeline, NEGATIVE, 1)
    ours = encoder.encode(PROMPT, PROMPT, syntax="a1111", clip_skip=1).tokens
    assert np.abs(ours - embeds[[1, 1]]).max() < LIMIT


def test_skipping_leaves_no_trace(embedded: Pair) -> None:
    encoder, _ = embedded
    before = encoder.encode(NEGATIVE, PROMPT).tokens
    encoder.encode(NEGATIVE, PROMPT, clip_skip=1)
    assert encoder.encode(NEGATIVE, PROMPT).tokens.tobytes() == before.tobytes()


@pytest.mark.filterwarnings("ignore")  # of the libraries that export, about each other
@pytest.mark.timeout(600)  # exporting takes a minute or two
def test_exported_models(exported: Pair) -> None:
    encoder, pipeline = exported
    for clip_skip in (0, 1, 0):
        compare(exported, clip_skip)
    most = min(len(text_encoder.text_model.encoder.layers) for text_encoder in _text_encoders(pipeline))
    with pytest.raises(BadRequest, match="`clip_skip` must be from 0 to"):
        encoder.encode(NEGATIVE, PROMPT, clip_skip=most)


def _text_encoders(pipeline: diffusers.DiffusionPipeline) -> list[torch.nn.Module]:
    found = [getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
    return [text_encoder for text_encoder in found if text_encoder is not None]
