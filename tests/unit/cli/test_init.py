from pathlib import Path

import msgspec
import pytest

from orchestrator import shipped_configs
from orchestrator.__main__ import main
from stages.core import config

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", shipped_configs.NAMES)
def test_what_is_written_loads_and_is_explained(name: str, folder: Path, capsys: Captured) -> None:
    assert main(["init", name]) == 0
    assert capsys.readouterr() == (
        "written: triptych.toml (triptych check triptych.toml says whether it runs here)\n",
        "",
    )
    written = folder / "triptych.toml"
    assert written.read_text().startswith("# ")
    loaded = config.load(written, environ={})
    assert loaded.folder == str(folder)
    assert loaded.model.path == {"demo": "demo", "lcm": "lcm-ov", "sd15": "sd15-ov"}[name]


def test_the_plan_of_a_new_configuration_is_that_of_none(folder: Path) -> None:
    assert main(["init", "demo", "-o", "own.toml"]) == 0
    assert [path.name for path in folder.iterdir()] == ["own.toml"]
    written = config.load(folder / "own.toml", environ={})
    model = msgspec.structs.replace(written.model, sizes=())
    assert msgspec.structs.replace(written, model=model) == config.load(None, environ={})


def test_a_file_is_replaced_only_by_force(folder: Path, capsys: Captured) -> None:
    file = folder / "triptych.toml"
    file.write_text("mine")
    assert main(["init", "demo"]) == 2
    assert file.read_text() == "mine"
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "triptych: error: triptych.toml is there already; name another file with -o, or replace it with --force\n"
    )
    assert main(["init", "demo", "--force"]) == 0
    assert file.read_bytes() == shipped_configs.text("demo")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sdxl"], "invalid choice: 'sdxl' (choose from 'demo', 'lcm', 'sd15')"),
        ([], "NAME"),
        (["demo", "-o", "no/such/file"], "there is no folder no/such"),
        (["demo", "-o", "."], "cannot write the configuration to .: Is a directory"),
    ],
)
def test_what_cannot_be_written_is_one_line(words: list[str], says: str, folder: Path, capsys: Captured) -> None:
    assert main(["init", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_in_a_wheel_the_configurations_are_in_the_package(folder: Path) -> None:
    (folder / "orchestrator" / "configs").mkdir(parents=True)
    (folder / "orchestrator" / "configs" / "demo.toml").write_bytes(b"of the wheel")
    (folder / "configs").mkdir()
    (folder / "configs" / "demo.toml").write_bytes(b"of somebody else beside it")
    assert shipped_configs.text("demo", folder / "orchestrator") == b"of the wheel"
