"""Sizes of pictures: what the plan refuses is what OpenVINO cannot run, and nothing else is."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from orchestrator.__main__ import main
from stages.core.model import EMBEDDED, ir, read_card
from stages.core.size_step import size_step

LATENT = 8
"""Pixels."""


def runs(core: ov.Core, xml: Path, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether the graph fits together for these shapes of its inputs."""
    model = core.read_model(xml)
    try:
        model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_models_run_at_multiples_of_their_step_and_at_no_other_size(name: str) -> None:
    card = read_card(EMBEDDED[name])
    assert (card.downscale, card.size_step) == (LATENT, 32)
    core = ov.Core()
    for height, width in product((16, 17, 18, 20, 24), repeat=2):
        shapes = {"sample": (1, 4, height, width), "timestep": (1,), "encoder_hidden_states": (1, 77, card.embed_dim)}
        if card.guidance_embed_dim:
            shapes["timestep_cond"] = (1, card.guidance_embed_dim)
        possible = height * LATENT % card.size_step == width * LATENT % card.size_step == 0
        assert runs(core, ir(card.path, "unet"), shapes) is possible, (height, width)


def unet(folder: Path, halvings: int, by_factor: bool) -> Path:
    """The IR of a U-Net without a purpose: halves its input so often, doubles it again, and meets what it had."""
    sample = level = ops.parameter([-1, 4, -1, -1], np.float32, name="sample")
    weights = ops.constant(np.zeros((4, 4, 3, 3), np.float32))
    met = []
    for _ in range(halvings):
        met.append(level)
        level = ops.convolution(level, weights, [2, 2], [1, 1], [1, 1], [1, 1])
    for skip in reversed(met):
        size = ops.gather(ops.shape_of(skip), ops.constant([2, 3]), ops.constant(0))
        asked = ops.constant(np.full(2, 2, np.float32)) if by_factor else size
        mode = "scales" if by_factor else "sizes"
        level = ops.interpolate(level, asked, "nearest", mode, axes=ops.constant([2, 3]))
        level = ops.convolution(ops.concat([level, skip], 1), np.zeros((4, 8, 1, 1), np.float32), *[[1, 1]] * 4)
        level = ops.slice(level, [1, 1], [-1, -1], [1, 1], [2, 3])  # what a padding of 1 has put around
    ov.save_model(ov.Model([level], [sample]), folder / "openvino_model.xml", compress_to_fp16=False)
    return folder / "openvino_model.xml"


@pytest.mark.parametrize("by_factor", [True, False])
@pytest.mark.parametrize("halvings", [0, 1, 2, 3])
def test_the_step_is_that_of_the_graph(halvings: int, by_factor: bool, tmp_path: Path) -> None:
    xml, core = unet(tmp_path, halvings, by_factor), ov.Core()
    step = size_step(xml, halvings + 1, LATENT)
    possible = [side for side in range(1, 25) if runs(core, xml, {"sample": (1, 4, side, 16)})]
    assert possible == [side for side in range(1, 25) if side * LATENT % step == 0]


def test_a_size_that_cannot_be_made_is_refused_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", '--set=model.sizes=["128x128", "136x128"]']) == 2
    assert capsys.readouterr().err == (
        "triptych: error: model.sizes: 136x128 is no multiple of 32 pixels each way, which this model needs; "
        "the nearest size is 128x128\n"
    )
