"""What is published, beside nothing else: a wheel in an empty folder, from where the checkout cannot be seen."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.gateway.routes.page import FILES
from tests.conftest import ROOT
from tests.server import DEADLINE_S

Run = Callable[..., str]

OWN_FILES = "import orchestrator, stages; print(orchestrator.__file__, stages.__file__, sep='\\n')"


def run(command: list[str], cwd: Path, **variables: str) -> str:
    ended = subprocess.run(
        command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the wheel, built by what the tests' extra brings, without a network."""
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", str(built), "."], ROOT)
    [wheel] = built.glob("*.whl")
    run([*pip, "install", "--no-index", "--no-deps", "--target", str(target), str(wheel)], built)
    return target


@pytest.fixture
def beside(installed: Path, tmp_path: Path) -> Run:
    """Run Python in an empty folder, with the wheel's files and what they depend on."""
    cache = tmp_path / "cache"
    empty = tmp_path / "empty"
    empty.mkdir()
    return lambda *words: run([sys.executable, *words], empty, PYTHONPATH=str(installed), XDG_CACHE_HOME=str(cache))


def test_a_wheel_draws_with_a_configuration_that_it_wrote(beside: Run, installed: Path, tmp_path: Path) -> None:
    files = beside("-c", OWN_FILES).splitlines()
    assert files == [str(installed / "orchestrator" / "__init__.py"), str(installed / "stages" / "__init__.py")]
    triptych = ("-m", "orchestrator")
    assert "written: triptych.toml" in beside(*triptych, "init", "demo")
    beside(*triptych, "generate", "a photo of a cat on mars", "--steps", "2", "-c", "triptych.toml")
    [picture] = (tmp_path / "empty" / "triptych-out").glob("*.png")
    with Image.open(picture) as image:
        assert image.size == (128, 128)
        assert "a photo of a cat on mars" in image.text["parameters"]


def test_the_page_is_in_it(installed: Path) -> None:
    folder = installed / "orchestrator" / "gateway" / "page"
    assert {file.name for file in folder.iterdir()} == set(FILES)


def test_no_test_and_no_document_is_installed(installed: Path) -> None:
    # tests/ or docs/ at the top of site-packages would be taken for those of somebody else.
    assert {path.name for path in installed.iterdir() if path.is_dir() and path.suffix != ".dist-info"} == {
        "bin",
        "orchestrator",
        "stages",
    }
