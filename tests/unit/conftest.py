import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0

# The machine that runs this may be busy with anything else; an example that takes long says nothing about us.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


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
