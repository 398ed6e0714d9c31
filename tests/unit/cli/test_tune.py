import json
from pathlib import Path

import pytest

from orchestrator.__main__ import main
from orchestrator.cli.commands.tune import TuningLines
from orchestrator.tuning import tuner
from stages.core import config
from stages.core.point import Point
from tests.unit.outcomes import PROFILE, outcome


class Done:
    """A tuner that has finished before it began."""

    def __init__(self, task: tuner.TuningTask, show: tuner.TunerDisplay) -> None:
        self.cap_s = task.cap_s
        show.phase("measuring stages", 1)
        show.doing("unet, 1 thread")
        show.done("unet, 1 thread: 2 rows 3 ms")

    def run(self) -> tuner.TuningOutcome:
        return outcome(self.cap_s)

    def profile(self, conditions: object) -> object:
        return PROFILE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.cli.commands.tune.Tuner", Done)
    return tmp_path


def test_the_best_is_written_as_a_configuration_that_can_be_served(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--latency-cap", "1", "-o", "fast.toml"]) == 0
    best = outcome(1.0).best
    assert best is not None
    assert config.load(here / "fast.toml", environ={}).stages()[1].streams == best.unet.streams
    assert (here / "fast.toml").read_text().startswith("# Written by `triptych tune`.\n# Measured here: ")
    out = capsys.readouterr().out
    assert (here / "fast.report.txt").read_text() in out
    assert out.endswith("written: fast.toml, fast.report.txt, fast.profile.json\n")


def test_a_cap_that_nothing_keeps_writes_no_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--latency-cap", "0.001", "-o", "fast.toml"]) == 1
    assert not (here / "fast.toml").exists()
    assert "nothing that was run keeps p99 within 0.001 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: --latency-cap"),
        (["--latency-cap", "0"], "0 is not above 0"),
        (["--latency-cap", "1", "--budget", "-3"], "-3 is not above 0"),
        (["own.toml", "--latency-cap", "1", "-o", "./own.toml"], "name another file"),
        (["--latency-cap", "1", "-o", "none/x.toml"], "there is no folder none"),
    ],
)
def test_mistakes_are_told_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (here / "own.toml").write_text("")
    assert main(["tune", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_breaking_off_says_that_nothing_is_lost(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Done) -> tuner.TuningOutcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(Done, "run", interrupted)
    assert main(["tune", "--latency-cap", "1"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_a_plan_is_labelled_simulated_and_tells_what_it_assumes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.json").write_bytes(PROFILE.encode())
    assert main(["plan", "--cores", "4", "--numa", "2", "--steps", "1", "--profile", "p.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("SIMULATED, nothing was run: paper, 1 step an image, 4 cores in 2 memory nodes")
    assert "Assumed:" in out
    assert "cells of 2 cores" in out


def test_a_plan_for_programs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "p.json").write_bytes(PROFILE.encode())
    words = ["plan", "--cores", "2", "--steps", "3", "--profile", "p.json", "--latency-cap", "0.0001", "--json"]
    assert main(words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["simulated"] is True
    assert {row["keeps_cap"] for row in told["layouts"]} == {False}


class Telling(TuningLines):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_points_are_told_in_words() -> None:
    unet = next(point for point in PROFILE.points if point.kind == "unet")
    assert isinstance(unet, Point)
    assert tuner.describe_point(unet) == f"2 rows {unet.seconds * 1000:.3g} ms"
