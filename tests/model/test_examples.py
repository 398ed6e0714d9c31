"""The programs in examples/ do what they say."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.core import wire
from tests.conftest import ROOT
from tests.server import DEADLINE_S, Server, run, serving

EXAMPLES = ROOT / "examples"
FOX = wire.Submit(id="x", prompt="a photo of a fox in the snow", seed=7, steps=2)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def pixels(server: Server) -> NDArray[np.int16]:
    with server.client() as client:
        return np.asarray(Image.open(io.BytesIO(run(client, [FOX]).images["x", 0])).convert("RGB"), np.int16)


def test_a_stage_of_ones_own_marks_the_picture(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len((EXAMPLES / "own_stage.py").read_text().splitlines()) < 40
    plain = pixels(server)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), *os.environ.get("PYTHONPATH", "").split()]))
    with serving("stage.vae.implementation=own_stage:Watermark") as own:
        marked = pixels(own)
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    assert rows.size > 100, "no mark"
    assert rows.min() >= 128 - 20, "the mark is not at the lower edge"
    assert columns.min() >= 128 - 70, "the mark is not at the right edge"
    assert marked[rows, columns].min(axis=1).max() > 240, "the letters are not white"


def client(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "client.py"), *words]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=DEADLINE_S, check=False)


def test_the_client_shows_progress_and_saves_pictures(server: Server, tmp_path: Path) -> None:
    prompts = ["a photo of a cat", "a sketch of a castle"]
    ended = client(*prompts, "--connect", server.address, "--steps", "3", "-o", str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    said = ended.stdout.splitlines()
    files = {path.name[0]: path for path in tmp_path.iterdir()}
    assert files.keys() == {"1", "2"}
    for id, prompt in zip("12", prompts, strict=True):
        of_this = [line for line in said if line.startswith(f"{id}: ")]
        assert re.fullmatch(rf"{id}: accepted, \d before it: {prompt}", of_this[0])
        assert any(re.fullmatch(rf"{id}: unet [0-3]/3", line) for line in of_this)
        assert of_this[-1] == f"{id}: {files[id]}"
        with Image.open(files[id]) as image:
            assert image.text["parameters"].startswith(f"{prompt}\nSteps: 3,")


def test_the_client_tells_of_what_failed(server: Server, tmp_path: Path) -> None:
    ended = client(" ", "a photo of a cat", "--connect", server.address, "--steps", "1", "-o", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.startswith("1: bad_request: `prompt` is blank")
    assert [path.name[0] for path in tmp_path.iterdir()] == ["2"]
