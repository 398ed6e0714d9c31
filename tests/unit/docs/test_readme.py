"""The way in: the README, the Makefile, and what is said of both."""

import re

import pytest

from orchestrator.__main__ import COMMANDS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()

THE_TWO = (
    "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/triptych generate "
    '"a photo of an astronaut riding a horse on mars" --negative "low resolution, blurry"',
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
)


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    assert README.count("\n") < 200
    blocks = re.findall(r"^```\w*\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
    assert tuple(blocks[:2]) == THE_TWO


def test_ci_runs_the_second_as_it_is_written() -> None:
    assert THE_TWO[1] in CI.splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown(name: str) -> None:
    assert re.search(rf"triptych {name}\b", README)


def test_make_runs_what_ci_runs() -> None:
    recipes = [line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t.venv/bin/")]
    assert len(recipes) > 5
    for command in recipes:
        if "'.[test,dev]'" not in command:  # CI has the tests run before there is more than they need
            assert command in CI, f"make runs {command}, and .ci/run does not"
