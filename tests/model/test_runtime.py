"""The runtime: memory bound without a copy, and f32 where the chosen precision does not suffice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from stages.core.board import Board, BoardWriter
from stages.core.config import StageSpec
from stages.core.errors import ModelError
from stages.core.model import demo_folder
from stages.numerics import SelfTest
from stages.runtime import Forward, Runtime
from tests.cpu import needs_bf16

UNET = {"sample": (1, 4, 16, 16), "timestep": (1,), "encoder_hidden_states": (1, 77, 160)}


@pytest.fixture
def board() -> BoardWriter:
    return BoardWriter(Board(1).region, 0)


def spec(precision: str = "auto", model: Path | None = None) -> StageSpec:
    return StageSpec(
        name="unet-0",
        number=0,
        kind="unet",
        replica=0,
        implementation="",
        cores="0",
        threads=1,
        takes_turns=False,
        bind_threads=False,
        streams=1,
        max_rows=2,
        depth=2,
        shapes_bytes=0,
        order="arrival",
        precision=precision,  # type: ignore[arg-type]
        model=str(model or demo_folder()),
        sizes=((128, 128),),
        prompt_chunks=1,
        pools=(),
    )


def fill(forward: Forward) -> None:
    forward.allocate("sample")[...] = np.random.default_rng(1).standard_normal((1, 4, 16, 16))
    forward.allocate("timestep")[...] = 500
    forward.allocate("encoder_hidden_states")[...] = np.random.default_rng(2).standard_normal((1, 77, 160))


def test_outputs_appear_in_the_memory_that_was_bound(board: BoardWriter) -> None:
    forward = Runtime(spec("f32"), board).compile("unet", UNET)
    fill(forward)
    mine = np.full((1, 4, 16, 16), np.nan, np.float32)
    forward.bind("out_sample", mine)
    assert forward.infer()
    assert np.isfinite(mine).all()
    assert mine.std() > 0.01


class InBf16(ov.CompiledModel):
    """Says that it computes in bf16."""

    def get_property(self, property: str) -> Any:
        return ov.Type.bf16 if property == "INFERENCE_PRECISION_HINT" else super().get_property(property)


class Bf16Core(ov.Core):
    """Has f32, and bf16 for whatever else is asked for; in truth it computes all in f32. Keeps what it compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: list[ov.CompiledModel] = []

    def compile_model(self, model: ov.Model, device_name: str, config: Mapping[str, Any]) -> ov.CompiledModel:
        precisely = config.get("INFERENCE_PRECISION_HINT") == "f32"
        compiled = super().compile_model(model, device_name, {**config, "INFERENCE_PRECISION_HINT": "f32"})
        self.compiled.append(compiled if precisely else InBf16(compiled))
        return self.compiled[-1]


class NeverPasses(SelfTest):
    def passes(self, *_: object) -> bool:
        return False


LATENTS = {"latent_sample": (1, 4, 16, 16)}


def test_a_part_that_fails_its_self_test_is_computed_in_f32(
    board: BoardWriter, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    core = Bf16Core()
    runtime = Runtime(spec("bf16"), board, NeverPasses("", tmp_path), core)
    forward = runtime.compile("vae_decoder", LATENTS)
    assert forward.precision == "f32"
    assert "fails its self-test in bf16" in caplog.text
    assert runtime.compile("vae_decoder", {"latent_sample": (1, 4, 8, 8)}).precision == "f32"
    assert [dynamic_quantization(one) for one in core.compiled[1:]] == [0, 0]


def test_a_part_that_passes_keeps_its_precision(board: BoardWriter, tmp_path: Path) -> None:
    runtime = Runtime(spec("bf16"), board, SelfTest(ov.get_version(), tmp_path), Bf16Core())
    assert runtime.compile("vae_decoder", LATENTS).precision == "bf16"
    assert len(list(tmp_path.iterdir())) == 1


@needs_bf16
def test_the_embedded_model_passes_in_bf16(board: BoardWriter, tmp_path: Path) -> None:
    runtime = Runtime(spec("bf16"), board, SelfTest(ov.get_version(), tmp_path))
    assert runtime.compile("unet", UNET).precision == "bf16"
    assert len(list(tmp_path.iterdir())) == 1


# What was asked for, and what it became.


@pytest.mark.parametrize(("asked", "told"), [("f16", 1), ("bf16", 0), ("f32", 0), ("auto", 0)])
def test_a_precision_that_stands_in_for_the_one_asked_for_is_told_once(
    asked: str, told: int, board: BoardWriter, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    runtime = Runtime(spec(asked), board, SelfTest("", tmp_path), Bf16Core())
    for side in (16, 8):
        forward = runtime.compile("vae_decoder", {"latent_sample": (1, 4, side, side)})
        assert forward.precision == ("f32" if asked == "f32" else "bf16")
    line = "model.precision is f16, which this CPU does not compute in; bf16 is used (name that one, or auto)"
    assert [record.getMessage() for record in caplog.records] == [line] * told


def dynamic_quantization(compiled: ov.CompiledModel) -> int:
    """How many activations share a scale when they are rounded to 8 bits to meet compressed weights; 0: none are."""
    return int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))


def test_in_f32_activations_are_not_quantized(board: BoardWriter) -> None:
    assert dynamic_quantization(compiled(1.0, "f32")) > 0, "OpenVINO's own default has changed"
    core = Bf16Core()
    Runtime(spec("f32"), board, core=core).compile("vae_decoder", LATENTS)
    assert [dynamic_quantization(one) for one in core.compiled] == [0]


# What is not finite.


def compiled(scale: float, precision: str) -> ov.CompiledModel:
    """log(x * scale - 1): where x * scale is just above 1, bf16 rounds it to 1, whose logarithm is not finite."""
    x = ops.parameter([16, 16], np.float32, name="x")
    product = ops.matmul(x, ops.constant(np.eye(16, dtype=np.float32) * scale), False, False)
    model = ov.Model([ops.log(ops.subtract(product, np.float32(1)))], [x])
    model.input(0).get_tensor().set_names({"x"})
    model.output(0).get_tensor().set_names({"y"})
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


@pytest.mark.parametrize(("scale", "precision"), [(1.0, "f32"), pytest.param(1.001, "bf16", marks=needs_bf16)])
def test_nan_or_inf_is_computed_again_in_f32(
    scale: float, precision: str, board: BoardWriter, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the CPU has no bf16, the first model is made to give what bf16 would."""
    forward = Forward(compiled(scale, precision), board, lambda: Forward(compiled(1.001, "f32"), board))
    forward.allocate("x")[...] = 1
    y = forward.allocate("y")
    assert forward.infer()
    assert np.allclose(y, np.log(0.001), rtol=0.01)
    assert f"NaN or Inf in {precision}; computed again in f32" in caplog.text


def test_what_is_not_finite_in_f32_either_is_said_to_be_so(board: BoardWriter) -> None:
    forward = Forward(compiled(1.0, "f32"), board, lambda: Forward(compiled(1.0, "f32"), board))
    forward.allocate("x")[...] = 1
    forward.allocate("y")
    assert not forward.infer()


def embedding(table: ov.Node) -> ov.Model:
    """Rows of `table` by the ids of 32 bits in `ids`, among other uses of these."""
    ids = ops.parameter([-1, -1], np.int32, name="ids")
    others = [ops.gather(source, ops.constant(0), ops.constant(0)) for source in (ids, ops.shape_of(ids))]
    rows = ops.gather(table, ops.convert(ops.reshape(ids, ops.constant([1, -1]), False), "i64"), ops.constant(0))
    model = ov.Model([*others, rows], [ids])
    model.input(0).get_tensor().set_names({"ids"})
    return model


def test_the_rows_of_a_table_are_told_compressed_or_not(board: BoardWriter, tmp_path: Path) -> None:
    assert Runtime(spec(), board).table_rows("text_encoder", "input_ids") == 766
    plain, compressed = (ops.constant(np.zeros((9, 4), kind)) for kind in (np.float32, np.uint8))
    for table in (plain, ops.multiply(ops.convert(compressed, "f32"), ops.constant(np.ones((9, 1), np.float32)))):
        ov.save_model(embedding(table), tmp_path / "text_encoder/openvino_model.xml")
        assert Runtime(spec(model=tmp_path), board).table_rows("text_encoder", "ids") == 9


def test_where_nothing_is_picked_from_a_table_none_is_told(board: BoardWriter) -> None:
    assert Runtime(spec(), board).table_rows("unet", "timestep") is None


def test_shapes_that_cannot_be_compiled_are_named(board: BoardWriter) -> None:
    with pytest.raises(ModelError, match="unet: cannot be compiled for"):
        Runtime(spec("f32"), board).compile("unet", UNET | {"sample": (1, 5, 16, 16)})


def test_a_model_that_cannot_be_read_is_named(board: BoardWriter, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"openvino_model\.xml: cannot be read"):
        Runtime(spec("f32", tmp_path), board).compile("unet", UNET)
