"""What a prompt says, to the embedded model: weights, chunks, layers left out, and what is refused."""

import io
import json
from collections.abc import Iterator

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image

from stages.core import wire
from stages.core.errors import ModelError
from stages.rewrites.clip_layers import stack_layers
from tests.server import Server, run, serving

CASTLE = "a photo of a castle, a dragon in the sky"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("model.precision=f32") as running:
        yield running


def submit(prompt: str, **more: object) -> wire.Submit:
    return wire.Submit(**{"id": "x", "prompt": prompt, "seed": 7, "steps": 4} | more)  # type: ignore[arg-type]


def picture(server: Server, prompt: str, **more: object) -> Image.Image:
    with server.client() as client:
        outcome = run(client, [submit(prompt, **more)])
    assert not outcome.failed()
    return Image.open(io.BytesIO(outcome.images["x", 0]))


def pixels(server: Server, prompt: str, **more: object) -> NDArray[np.float64]:
    return np.asarray(picture(server, prompt, **more).convert("RGB"), np.float64)


def refusal(server: Server, prompt: str, **more: object) -> str:
    with server.client() as client:
        failed = run(client, [submit(prompt, **more)]).failed()["x"]
    assert failed.code == "bad_request"
    return failed.message


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Root mean square, of 255."""
    return float(np.sqrt(((one - other) ** 2).mean()))


def test_brackets_are_text_unless_asked_otherwise(server: Server) -> None:
    prompt = CASTLE.replace("castle", "(castle:1.5)")
    plain, weighted, without = (
        pixels(server, prompt),
        pixels(server, prompt, syntax="a1111"),
        pixels(server, CASTLE),
    )
    assert difference(plain, without) > 1
    assert difference(weighted, without) > 1
    assert difference(plain, weighted) > 1


def test_without_weights_both_syntaxes_make_the_same_picture(server: Server) -> None:
    assert pixels(server, CASTLE).tolist() == pixels(server, CASTLE, syntax="a1111").tolist()
    escaped = pixels(server, rf"{CASTLE} \(red\)", syntax="a1111")
    assert pixels(server, f"{CASTLE} (red)").tolist() == escaped.tolist()


def test_the_further_a_weight_is_from_1_the_more_it_changes(server: Server) -> None:
    without = pixels(server, CASTLE)
    found = [
        difference(pixels(server, CASTLE.replace("castle", f"(castle:{weight})"), syntax="a1111"), without)
        for weight in (1.0, 1.1, 1.6)
    ]
    assert found[0] == 0
    assert 0 < found[1] < found[2]


def test_the_negative_prompt_has_weights_too(server: Server) -> None:
    one, other = (
        pixels(server, CASTLE, negative_prompt=negative, syntax="a1111") for negative in ("dragon", "(dragon:1.6)")
    )
    assert difference(one, other) > 0.5


def test_what_composes_is_drawn_as_words_in_a_negative_prompt(server: Server) -> None:
    one, other = (
        pixels(server, CASTLE, negative_prompt="a dragon AND a tree", syntax=syntax) for syntax in ("a1111", "plain")
    )
    assert difference(one, other) == 0
    assert "write `and`" in refusal(server, "a dragon AND a tree", syntax="a1111")


def test_break_begins_a_window(server: Server) -> None:
    together = pixels(server, "a castle on a hill", syntax="a1111")
    apart = pixels(server, "a castle BREAK on a hill", syntax="a1111")
    assert difference(together, apart) > 1


def test_layers_can_be_skipped(server: Server) -> None:
    found = [pixels(server, CASTLE, clip_skip=layers) for layers in (0, 1, 2)]
    assert min(difference(one, other) for one, other in zip(found, found[1:] + found[:1], strict=True)) > 1


def test_a_picture_says_how_its_prompt_was_read(server: Server) -> None:
    found = picture(server, "a (castle:1.2)", syntax="a1111", clip_skip=1)
    assert found.text["parameters"].endswith("Model: demo, Clip skip: 2")
    written = json.loads(found.text["triptych"])
    assert (written["syntax"], written["clip_skip"]) == ("a1111", 1)


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        ("a BREAK b BREAK c BREAK d", {"syntax": "a1111"}, "`prompt` fills 4 chunks of 75 tokens; 3 of them"),
        ("(cat:1.1)" * 400, {"syntax": "a1111"}, "225 tokens, are encoded at most"),
        ("(cat:1000)", {"syntax": "a1111"}, "beyond 100"),
        ("[cat|dog]", {"syntax": "a1111"}, "alternation"),
        ("cat, embedding:easynegative", {"syntax": "a1111"}, "textual-inversion embeddings are not served"),
        ("a cat", {"clip_skip": 3}, "`clip_skip` must be from 0 to 2 with this model, not 3"),
        ("a cat", {"clip_skip": 12}, "`clip_skip` must be from 0 to 11, not 12"),
        ("a cat", {"syntax": "compel"}, "$.syntax"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_next_prompt_is_served(
    prompt: str, more: dict[str, object], said: str, server: Server
) -> None:
    assert said in refusal(server, prompt, **more)
    assert picture(server, CASTLE, steps=1).size == (128, 128)


def test_a_graph_without_two_norms_a_layer_is_not_rewritten() -> None:
    ids = ops.parameter([-1, 77, 8], np.float32, name="x")
    model = ov.Model([ops.mvn(ids, np.array([-1]), True, 1e-5, "inside_sqrt")], [ids])
    with pytest.raises(ModelError, match="cannot be told apart"):
        stack_layers(model)
