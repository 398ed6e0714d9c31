from pathlib import Path

import pytest

from orchestrator.tuning.config_file import render
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.space import candidates
from stages.core import config
from tests.unit.cards import CARD, DISTILLED

EVERY = [*candidates(Topology.what_if(2, 1), CARD)[::7], *candidates(Topology.what_if(16, 2), DISTILLED)[::29]]


def written(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "tuned.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, environ={})


@pytest.mark.parametrize("number", range(len(EVERY)))
def test_what_is_written_is_read_back(tmp_path: Path, number: int) -> None:
    own = config.load(
        None,
        [
            "pipeline.order=fair",
            'model.sizes=["64x64", "128x64"]',
            "deadlines.load_s=12.5",
            "load_attempts=5",
            'listen.socket=ipc:///run/a b\\"c',
            "stage.vae.implementation=package.module:Class",
        ],
        environ={},
    )
    back = written(tmp_path, render(own, EVERY[number], None, ["why", ""]))
    wanted = EVERY[number].apply(own)
    assert (back.model, back.pipeline, back.listen, back.deadlines) == (
        wanted.model,
        wanted.pipeline,
        wanted.listen,
        wanted.deadlines,
    )
    assert back.load_attempts == 5
    for read, meant in zip(back.stages(), wanted.stages(), strict=True):
        assert (read.kind, read.cores, read.threads, read.replicas) == (
            meant.kind,
            meant.cores,
            meant.threads,
            meant.replicas,
        )
    assert back.stages()[1] == wanted.stages()[1]
    assert back.stages()[2].implementation == "package.module:Class"


def test_a_folder_is_named_in_full_so_that_the_file_may_lie_anywhere(tmp_path: Path) -> None:
    own = config.load(None, ["model.path=models/x"], environ={})
    back = written(tmp_path, render(own, EVERY[0], Path("models/x"), []))
    assert back.model.path == str(Path("models/x").resolve())


def test_the_embedded_model_and_hub_ids_stay_what_they_are(tmp_path: Path) -> None:
    demo = config.load(None, environ={})
    assert written(tmp_path, render(demo, EVERY[0], Path("/somewhere"), [])).model.path == "demo"
    hub = config.load(None, ["model.path=org/name"], environ={})
    assert written(tmp_path, render(hub, EVERY[0], None, [])).model.path == "org/name"


def test_remarks_come_first() -> None:
    text = render(config.load(None, environ={}), EVERY[0], None, ["Measured here: 3 images/s.", ""])
    assert text.startswith("# Measured here: 3 images/s.\n#\n")
