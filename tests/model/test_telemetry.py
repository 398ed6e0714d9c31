"""What a library below the stages might do on its own account: call home, write into the home, start processes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.models.locate import card
from orchestrator.tuning import profile
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import StageSetting
from stages.core import config, wire
from tests.server import Server, run, serving

ROOT = Path(__file__).parents[2]

# Python runs a `sitecustomize` before the program, so this one sees what any import does. Forks inherit it.
SPY = """
import os, sys

EVENTS = ("socket.getaddrinfo", "socket.gethostby", "socket.connect", "os.fork", "os.posix_spawn", "subprocess.Popen")
report = os.open(os.environ["SPY_REPORT"], os.O_WRONLY | os.O_APPEND)

def note(line):
    os.write(report, f"{' '.join(sys.orig_argv[1:3])}: {line}\\n".encode())

if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith("stages"):
    note("started")
    sys.addaudithook(lambda event, arguments: note(f"{event} {arguments}") if event.startswith(EVENTS) else None)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for all processes that a test starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # where OpenVINO keeps quiet anyway
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def report(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stage processes note that they have started, and every look-up, connection and process that they begin."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy/sitecustomize.py").write_text(SPY)
    noted = tmp_path / "noted"
    noted.touch()
    monkeypatch.setenv("SPY_REPORT", str(noted))
    paths = (str(tmp_path / "spy"), str(ROOT), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return noted


@pytest.fixture
def server(report: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(cache=tmp_path / "cache") as running:
        yield running


def children(pid: int) -> list[str]:
    return [pid for task in Path(f"/proc/{pid}/task").iterdir() for pid in (task / "children").read_text().split()]


def test_stages_that_load_and_serve_call_nobody_write_nothing_and_start_nothing(
    server: Server, report: Path, home: Path
) -> None:
    with server.client() as client:
        outcome = run(client, [wire.Submit(id="x", prompt="a fox", seed=7, steps=2)])
    assert ("x", 0) in outcome.images
    stages = server.pids()
    assert sorted(server.children()) == sorted(stages.values())
    assert [child for pid in stages.values() for child in children(pid)] == []
    assert report.read_text().splitlines() == ["-m stages: started"] * len(stages)
    assert list(home.rglob("*")) == []


def test_nor_does_a_stage_that_is_measured(
    report: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a self-test of bf16 is remembered there
    plain = config.load(None, environ={})
    with profile.stage_profiler(StageSetting("vae", 1, 1, (1,)), plain, card(plain), Topology.here()) as stage:
        assert stage.measure(1) is not None
    assert report.read_text().splitlines() == ["-m stages.profile: started"]
    assert list(home.rglob("*")) == []
