from collections.abc import Callable
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT

HEAVY = ("openvino", "transformers", "torch", "PIL")

IMPORTED = """
import importlib, sys

for name in sys.argv[2:]:
    importlib.import_module(name)
print([name for name in sys.argv[1].split(",") if name in sys.modules])
"""


OF_EXTRAS = {"orchestrator.gateway.mcp_server": "mcp"}
"""Modules that need a package of an extra."""


def modules(package: str) -> list[str]:
    """The dotted names of all modules in a folder of the repository that can be imported here."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name not in OF_EXTRAS or find_spec(OF_EXTRAS[name]) is not None]


@pytest.mark.parametrize("package", ["stages", "stages/core"])
def test_the_packages_that_all_import_are_empty(package: str) -> None:
    assert (ROOT / package / "__init__.py").read_bytes() == b""


@pytest.mark.parametrize("names", [["orchestrator"], modules("orchestrator"), modules("stages/core")])
def test_no_model_library_comes_with(names: list[str], python: Callable[..., str]) -> None:
    assert python(IMPORTED, ",".join(HEAVY), *names) == "[]\n"


def test_a_model_library_would_be_seen(python: Callable[..., str]) -> None:
    assert python(IMPORTED, "PIL,json", "json") == "['json']\n"
