"""Prompt embeds of the embedded model: plain ones against diffusers, weights and long prompts as their authors say.

A1111 and lpw_stable_diffusion are no packages, so what they do is written down here, with torch.
"""

import diffusers
import numpy as np
import pytest
import torch

from stages.core.model import demo_folder
from tests.parity.embedded import embedded_pipeline
from tests.parity.text_stage import Encoder

LIMIT = 1e-4
"""Largest difference of any embed, relative to the largest one, which is about 5."""

NEGATIVE = "low resolution, blurry"
Chunk = list[tuple[str, float]]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(demo_folder())


@pytest.fixture(scope="module")
def pipeline() -> diffusers.StableDiffusionPipeline:
    return embedded_pipeline()


def by_torch(pipeline: diffusers.StableDiffusionPipeline, ids: list[int]) -> torch.Tensor:
    """The last hidden state [77, dim] of one chunk."""
    assert len(ids) == 77
    with torch.no_grad():
        return pipeline.text_encoder(torch.tensor([ids])).last_hidden_state[0]


def tokens(pipeline: diffusers.StableDiffusionPipeline, text: str) -> list[int]:
    return pipeline.tokenizer(text, add_special_tokens=False).input_ids


def near(ours: np.ndarray, theirs: torch.Tensor) -> bool:
    assert ours.shape == tuple(theirs.shape)
    return float(np.abs(ours - theirs.numpy()).max()) < LIMIT * float(theirs.abs().max())


@pytest.mark.parametrize(
    "prompt", ["", "a photo of an astronaut riding a horse on mars", "a (castle:1.5), [snow]", "cat " * 75]
)
def test_plain_prompts_are_diffusers(
    prompt: str, encoder: Encoder, pipeline: diffusers.StableDiffusionPipeline
) -> None:
    with torch.no_grad():
        positive, negative = pipeline.encode_prompt(prompt, "cpu", 1, True, NEGATIVE)
    assert near(encoder.encode(NEGATIVE, prompt).tokens, torch.cat([negative, positive]))


@pytest.mark.parametrize("count", [76, 150, 151, 225])
def test_long_prompts_are_those_of_lpw(
    count: int, encoder: Encoder, pipeline: diffusers.StableDiffusionPipeline
) -> None:
    """Pad to a whole number of chunks, cut, and put marks over the first and the last token of each."""
    words = ["castle", "astronaut", "tree", "red"] * 60
    ids: list[int] = []
    prompt = ""
    while len(ids) < count:
        prompt += f" {words.pop()}"
        ids = tokens(pipeline, prompt)
    ids = ids[:count]
    prompt = pipeline.tokenizer.decode(ids)
    assert tokens(pipeline, prompt) == ids
    begin, end = pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id
    chunks = -(-count // 75)
    line = [begin, *ids, *[pipeline.tokenizer.pad_token_id] * (75 * chunks - count), end]
    cut = [[begin, *line[75 * number + 1 : 75 * number + 76], end] for number in range(chunks)]
    expected = torch.cat([by_torch(pipeline, chunk) for chunk in cut])
    assert near(encoder.encode(prompt).tokens[0], expected)
    assert near(encoder.encode(prompt, syntax="a1111").tokens[0], expected)


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [
        ("a (castle:1.5) in [the] snow", [[("a", 1), ("castle", 1.5), ("in", 1), ("the", 1 / 1.1), ("snow", 1)]]),
        ("((red)) tree, (blue:0.3)", [[("red", 1.1**2), ("tree,", 1), ("blue", 0.3)]]),
        ("(a tree (with birds:1.2):1.5)", [[("a tree", 1.5), ("with birds", 1.2 * 1.5)]]),
        (r"a \(red\) (tree", [[("a (red)", 1), ("tree", 1.1)]]),
        ("a castle BREAK (snow:1.4)", [[("a castle", 1)], [("snow", 1.4)]]),
        ("(a castle BREAK snow:0.7) BREAK", [[("a castle", 0.7)], [("snow", 0.7)]]),
        # Not cats: of these the mean is so near to zero that to scale it back is to scale rounding errors.
        ("(tree:1.3)" + " tree" * 80, [[("tree", 1.3), ("tree " * 74, 1)], [("tree " * 6, 1)]]),
    ],
)
def test_weights_are_those_of_a1111(
    prompt: str, chunks: list[Chunk], encoder: Encoder, pipeline: diffusers.StableDiffusionPipeline
) -> None:
    assert tokens(pipeline, "tree") == tokens(pipeline, "tree tree")[:1]  # the last case counts tokens by words
    expected = torch.cat([a1111(pipeline, chunk) for chunk in chunks])
    found = encoder.encode(NEGATIVE, prompt, syntax="a1111").tokens
    assert near(found[1], expected)
    assert not near(encoder.encode(prompt.replace("BREAK", "")).tokens[0][:77], expected[:77])


def a1111(pipeline: diffusers.StableDiffusionPipeline, chunk: Chunk) -> torch.Tensor:
    """Each text's tokens one after another; the encoder's output times their weights, back to the mean it had."""
    begin, end = pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id
    ids, weights = [begin], [1.0]
    for text, weight in chunk:
        found = tokens(pipeline, text)
        ids += found
        weights += [weight] * len(found)
    fill = 77 - len(ids)
    z = by_torch(pipeline, ids + [end] * fill)
    weighted = z * torch.tensor(weights + [1.0] * fill)[:, None]
    return weighted * (z.mean() / weighted.mean())
