"""The configurations that come with the project say what they mean."""

import re
from pathlib import Path

import msgspec
import pytest

from stages.core import config

FOLDER = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    loaded = config.load(path, environ={})
    assert loaded.folder == str(FOLDER)


def test_the_explained_one_names_every_key_with_its_default() -> None:
    path = FOLDER / "sd15.toml"
    explained = set(re.findall(r"^(?:# )?(\w+) = ", path.read_text(), re.MULTILINE))
    names = ("Model", "Pipeline", "Listen", "Deadlines", "Stage")
    keys = {field.name for name in names for field in msgspec.structs.fields(getattr(config, f"{name}Config"))}
    assert explained == keys | {"load_attempts"}
    loaded = config.load(path, environ={})
    named = msgspec.structs.replace(
        loaded, model=msgspec.structs.replace(loaded.model, path=config.ModelConfig().path), stage=()
    )
    assert named == config.Config(folder=str(FOLDER))
    assert loaded.stages() == config.Config().stages()
