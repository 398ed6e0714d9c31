"""The making of full-size models, with steps that only write down that they were taken."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

import benchmarks
from benchmarks import models


class Steps(ModuleType):
    """In place of benchmarks.full_size, which needs torch."""

    def __init__(self) -> None:
        super().__init__("benchmarks.full_size")
        self.taken: list[str] = []
        self.fails = False

    def draw_weights(self, name: str, folder: Path) -> None:
        self.taken.append(f"draw {name}")
        folder.mkdir(parents=True)
        if self.fails:
            raise MemoryError

    def export(self, torch_folder: Path, folder: Path) -> None:
        assert torch_folder.is_dir()
        self.taken.append(f"export {torch_folder.name}")
        folder.mkdir()

    def read_back(self, folder: Path) -> None:
        self.taken.append("read back")
        folder.mkdir(parents=True)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Steps to take."""
    steps = Steps()
    monkeypatch.setitem(sys.modules, "benchmarks.full_size", steps)
    monkeypatch.setattr(benchmarks, "full_size", steps, raising=False)
    return steps


def test_only_what_is_missing_is_made(steps: Steps, tmp_path: Path) -> None:
    models.main(["lcm", "demo", "--folder", str(tmp_path)])
    assert steps.taken == ["draw lcm", "export lcm-torch", "read back"]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["demo-torch", "lcm-ov", "lcm-torch"]
    models.openvino_folder("lcm", tmp_path).rmdir()
    models.main(["lcm", "demo", "--folder", str(tmp_path)])
    assert steps.taken[3:] == ["export lcm-torch"]


def test_what_was_broken_off_is_made_anew(steps: Steps, tmp_path: Path) -> None:
    steps.fails = True
    with pytest.raises(MemoryError):
        models.make("sd15", tmp_path)
    assert not models.torch_folder("sd15", tmp_path).exists()
    steps.fails = False
    models.make("sd15", tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["sd15-ov", "sd15-torch"]


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.full_size", None)
    monkeypatch.delattr(benchmarks, "full_size", raising=False)
    with pytest.raises(SystemExit, match=r"full_size.*pip install -e '\.\[parity\]'"):
        models.make("sd15", tmp_path)


def test_unknown_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        models.main(["sd3"])
    assert "there is no sd3; those that can be made are sd15, lcm, demo" in capsys.readouterr().err
