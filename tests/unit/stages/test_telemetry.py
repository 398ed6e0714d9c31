import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DEADLINE_S, ROOT

SENDERS = {"openvino", "openvino_genai", "openvino_tokenizers", "optimum", "nncf"}
"""What imports openvino_telemetry, if it is there."""

SWITCHED_OFF = "import sys; print('openvino_telemetry' in sys.modules, sys.modules.get('openvino_telemetry', 0))"


def importers(folder: str) -> set[str]:
    """The files of a folder that import what sends telemetry."""
    found = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if SENDERS & {name.partition(".")[0] for name in names}:
                found.add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("package", ["benchmarks", "demo", "tests"])
def test_it_is_off_in_the_packages_whose_modules_import_what_sends_it(package: str, python: Callable[..., str]) -> None:
    assert importers(package), "nothing to switch off"
    assert python(f"import {package}; {SWITCHED_OFF}") == "True None\n"


def test_of_the_stages_only_those_import_it_that_are_imported_by_name() -> None:
    assert importers("stages") == {"stages/runtime.py", "stages/rewrites/clip_layers.py"}
    assert importers("orchestrator") == set()


def test_it_is_off_before_the_module_of_a_stage_is_imported(tmp_path: Path) -> None:
    (tmp_path / "own_stage.py").write_text(f"{SWITCHED_OFF}\nfrom stages.stage import Stage\nclass Own(Stage): ...\n")
    program = """
import sys
from types import SimpleNamespace
from stages.implementation import implementation
assert "openvino_telemetry" not in sys.modules
implementation(SimpleNamespace(kind="unet", implementation="own_stage:Own"))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("True None\n", "")


def test_openvino_converts_models_without_it(python: Callable[..., str]) -> None:
    """Which is where it would be sent from."""
    program = """
from stages import telemetry
telemetry.switch_off()
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""
    assert python(program) == "openvino.tools.ovc.telemetry_stub\n"
