"""The tuner around real processes: stub stages, which take the same time whatever they are given."""

from pathlib import Path

import msgspec
import pytest

from orchestrator.__main__ import main
from orchestrator.models.locate import card
from orchestrator.plan import plan
from orchestrator.tuning import profile, trial
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import ProfileStore, StageSetting
from orchestrator.tuning.score import fill
from orchestrator.tuning.space import candidates
from orchestrator.tuning.tuner import configured_candidate
from stages.core import config, cores
from stages.core.errors import StartFailed
from tests.server import STUBS
from tests.unit.points import TEXT, UNET, VAE, point

CONFIG = config.load(None, STUBS, environ={})
CARD = card(CONFIG)
HERE = Topology.here()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_trial_plays_the_load_and_sees_every_process() -> None:
    candidate = configured_candidate(CONFIG, CARD, HERE)
    out = fill(plan(candidate.apply(CONFIG), CARD, HERE.machine))
    ticks: list[None] = []
    ran = trial.run(None, list(STUBS), candidate, out, 12, 4, lambda: ticks.append(None))
    assert ran.score.images_per_s > 0
    assert 0 < ran.score.p50_s <= ran.score.p99_s
    assert set(ran.cores_used) == {"text-0", "unet-0", "vae-0", "hub", "load"}
    assert ran.bottleneck.limits
    assert ran.messages >= 12 * 6  # accepted, taken up by each of the three stages, the image, done
    assert ticks


def test_a_pipeline_that_does_not_start_is_told_as_it_is() -> None:
    broken = ["stage.unet.implementation=tests.proc.stubs:RefusesToLoad", "load_attempts=1", *STUBS[::2]]
    candidate = configured_candidate(CONFIG, CARD, HERE)
    with pytest.raises(StartFailed, match="unet-0"):
        trial.run(None, broken, candidate, 3, 6, 2)


def test_a_stage_is_measured_on_the_cores_it_is_given() -> None:
    setting = StageSetting("vae", 1, 1, (1,))
    found = list(profile.measure(setting, CONFIG, CARD, HERE, float("inf"), lambda: None))
    assert len(found) == 2
    for each in found:
        assert each.cores == cores.render(HERE.cores[:1])
        assert each.seconds > 0.009  # what the stub sleeps
        assert each.repeats >= 3


def test_a_stage_that_cannot_be_measured_is_named() -> None:
    wrong = config.load(None, ["stage.unet.implementation=tests.proc.stubs:RefusesToLoad"], environ={})
    with pytest.raises(StartFailed, match=r"unet with 1 threads? could not be measured"):
        list(profile.measure(StageSetting("unet", 1, 1, (2,)), wrong, CARD, HERE, float("inf"), lambda: None))


def test_tuning_ends_with_a_file_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages alone are taken for measured, so that the test has only pipelines to start."""
    monkeypatch.chdir(tmp_path)
    memory = ProfileStore(profile.facts(CONFIG, CARD))
    laws = {"unet": UNET, "vae": VAE, "text": TEXT}
    for setting in profile.stage_settings(HERE, CARD):
        for rows in setting.rows:
            memory.add(point(setting.kind, laws[setting.kind], setting.threads, setting.streams, rows))
    words = ["tune", "--latency-cap", "60", "--steps", "2", "--budget", "0.1", "-o", "fast.toml"]
    words += [f"--set={each}" for each in STUBS]
    assert main([*words, "--trials", "1"]) == 0
    told = capsys.readouterr()
    assert "images/s, p99" in told.err
    found = config.load(tmp_path / "fast.toml", environ={})
    assert plan(found, CARD, HERE.machine).stages
    assert main([*words, "--trials", "1"]) == 0
    again = capsys.readouterr()
    assert "images/s, p99" not in again.err, "nothing had to be run again"
    assert again.out == told.out


def test_candidates_are_planned_on_this_machine() -> None:
    for candidate in candidates(HERE, CARD):
        assert plan(candidate.apply(CONFIG), CARD, HERE.machine).stages


def test_points_can_be_sent() -> None:
    one = point("unet", UNET, 1, 1, 2)
    assert msgspec.json.decode(msgspec.json.encode(one), type=type(one)) == one
