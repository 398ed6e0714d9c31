"""Folders as people have them, with the weights of the embedded model, served to the picture."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.core import wire
from stages.core.model import demo_folder
from tests.server import Server, run, serving

OWN_NOT_SERVED = {
    "of an unknown class": {"_class_name": "DEISMultistepScheduler", "solver_order": 2},
    "with a value that is not served": {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model again, with JSON to be changed at will."""

    def copy_or_link(source: str, target: str) -> None:
        if source.endswith(".json"):
            shutil.copyfile(source, target)
        else:
            Path(target).symlink_to(source)

    return Path(shutil.copytree(demo_folder(), tmp_path / "model", copy_function=copy_or_link))


def submit(id: str, schedule: str | None = None) -> wire.Submit:
    return wire.Submit(id=id, prompt="a red fox", seed=7, steps=3, schedule=schedule)


def drawn(server: Server, *asked: wire.Submit) -> dict[str, bytes | str]:
    """Of each request the pixels, or what is said of its failure."""
    with server.client() as client:
        outcome = run(client, asked)
    pictures = {id: np.asarray(Image.open(io.BytesIO(image))).tobytes() for (id, _), image in outcome.images.items()}
    return pictures | {failed.id: f"{failed.code}: {failed.message}" for failed in outcome.failed().values()}


@pytest.mark.parametrize("own", OWN_NOT_SERVED)
def test_a_model_whose_own_schedule_is_not_served_draws_with_one_that_is_named(own: str, folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    said = json.loads(path.read_text()) | OWN_NOT_SERVED[own]
    path.write_text(json.dumps(said))
    with serving("model.precision=f32", f"model.path={folder}") as server:
        asked = drawn(server, submit("named", "euler"), submit("silent"))
    assert isinstance(asked["silent"], str)
    assert asked["silent"].startswith("bad_request: `schedule` has to be named: ")
    assert "euler_a" in asked["silent"]
    with serving("model.precision=f32", f"model.path={folder}", "model.schedule=euler") as server:
        configured = drawn(server, submit("silent"))
    with serving("model.precision=f32") as server:
        usual = drawn(server, submit("named", "euler"))
    assert asked["named"] == configured["silent"] == usual["named"]
