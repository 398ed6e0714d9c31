import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.signal_stack import drop_signal_stack

ROOT = Path(__file__).parents[1]
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def ordinary_signal_stack() -> None:
    """Have signals of this test handled on the ordinary stack."""
    drop_signal_stack()


@pytest.fixture
def python() -> Callable[..., str]:
    """Run code in a fresh interpreter, warnings being errors, and return what it printed."""

    def run(code: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> str:
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=ROOT, pass_fds=pass_fds, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run
