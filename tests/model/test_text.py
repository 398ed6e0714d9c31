"""The text stage of a model folder: what it refuses to load, and what it lays into its slot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from stages.core.board import Board, BoardWriter
from stages.core.errors import ModelError
from stages.core.model import demo_folder, read_card
from stages.runtime import Runtime
from stages.text.clip import Clip
from tests.model.test_runtime import spec
from tests.parity.text_stage import Encoder
from tests.server import DEADLINE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model, its text encoder and its tokenizer twice."""
    shutil.copytree(demo_folder(), tmp_path / "model")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tmp_path / "model" / part, tmp_path / "model" / f"{part}_2")
    return tmp_path / "model"


def edit(file: Path, **keys: object) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def clip(folder: Path, part: str) -> Clip:
    return Clip(Runtime(spec("f32", folder), BoardWriter(Board(1).region, 0)), read_card(folder), part, 1)


@pytest.mark.parametrize("number", ["", "_2"])
def test_every_text_encoder_is_held_against_its_own_tokenizer(number: str, folder: Path) -> None:
    clip(folder, f"text_encoder{number}")
    edit(folder / f"tokenizer{number}" / "tokenizer_config.json", pad_token="<pad>")
    with pytest.raises(ModelError, match=rf"tokenizer{number}: the id of its token '<pad>' is 766, but .* that of 765"):
        clip(folder, f"text_encoder{number}")


# Two text encoders.


@pytest.fixture
def sdxl(folder: Path) -> Path:
    """The same folder as one of SDXL: hidden states of both encoders, and pooled embeds of the second one."""
    edit(folder / "model_index.json", _class_name="StableDiffusionXLPipeline")
    edit(folder / "unet/config.json", cross_attention_dim=320, addition_embed_type="text_time")
    edit(folder / "text_encoder_2/config.json", projection_dim=160)
    for part in ("text_encoder", "text_encoder_2"):
        model = ov.Core().read_model(folder / part / "openvino_model.xml")
        norms = [node for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
        for layer, norm in enumerate(norms[::2]):
            [state] = model.add_outputs(norm.input_value(0))
            state.get_tensor().set_names({f"hidden_states.{layer}"})
        if part == "text_encoder_2":
            pooled = ops.squeeze(ops.slice(norms[-1], *([0], [1], [1], [1])), ops.constant(1))
            model.add_results([ops.result(pooled)])
            model.outputs[-1].get_tensor().set_names({"text_embeds"})
        ov.save_model(model, folder / "new.xml", compress_to_fp16=False)
        for suffix in ("xml", "bin"):
            (folder / f"new.{suffix}").replace(folder / part / f"openvino_model.{suffix}")
    return folder


def test_no_window_is_left_out_where_one_encoder_needs_more_than_the_other(sdxl: Path) -> None:
    prompt = "a photo of a castle " * 8
    tokenizer = sdxl / "tokenizer_2/tokenizer.json"
    both_short = Encoder(sdxl).encode(prompt).tokens[0]
    graph = json.loads(tokenizer.read_text())
    edit(tokenizer, model=graph["model"] | {"merges": []})
    second_longer = Encoder(sdxl).encode(prompt).tokens[0]
    assert (both_short.shape, second_longer.shape) == ((77, 320), (154, 320))
    assert second_longer[:77, :160].tolist() == both_short[:, :160].tolist()
    empty = Encoder(sdxl).encode("").tokens[0]
    assert second_longer[77:, :160].tolist() == empty[:, :160].tolist()
    assert np.abs(second_longer[77:, 160:] - empty[:, 160:]).max() > 0.1

    (sdxl / "tokenizer").rename(sdxl / "longer")
    (sdxl / "tokenizer_2").rename(sdxl / "tokenizer")
    (sdxl / "longer").rename(sdxl / "tokenizer_2")
    assert Encoder(sdxl).encode(prompt).tokens[0].shape == (154, 320)


WITHOUT_TORCH = """
import importlib.util
from types import SimpleNamespace

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "torch" else find_spec(name, *package)
from stages.implementation import implementation

stage = implementation(SimpleNamespace(kind="text", implementation="stages.text.encoder:TextStage"))
import transformers

print(stage.__name__, transformers.utils.is_torch_available())
"""


def test_that_there_is_no_torch_is_not_told() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRANSFORMERS_")}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("TextStage False\n", "")
