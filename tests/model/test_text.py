"""The text stage of a model folder: what it refuses to load, and what it lays into its slot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core.board import Beacon, Board
from stages.core.errors import ModelError
from stages.core.model import demo_folder, read_card
from stages.runtime import Runtime
from stages.text.clip import Clip
from tests.model.test_runtime import spec
from tests.server import DEADLINE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model, its text encoder and its tokenizer twice."""
    shutil.copytree(demo_folder(), tmp_path / "model")
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tmp_path / "model" / part, tmp_path / "model" / f"{part}_2")
    return tmp_path / "model"


def clip(folder: Path, part: str) -> Clip:
    return Clip(Runtime(spec("f32", folder), Beacon(Board(1).region, 0)), read_card(folder), part, 1)


@pytest.mark.parametrize("number", ["", "_2"])
def test_every_text_encoder_is_held_against_its_own_tokenizer(number: str, folder: Path) -> None:
    clip(folder, f"text_encoder{number}")
    config = folder / f"tokenizer{number}" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "<pad>"}))
    with pytest.raises(ModelError, match=rf"tokenizer{number}: the id of its token '<pad>' is 766, but .* that of 765"):
        clip(folder, f"text_encoder{number}")


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
