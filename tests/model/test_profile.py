"""Stages of the embedded model, measured alone."""

import pytest

from orchestrator.models.locate import card
from orchestrator.tuning import profile
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import StageSetting
from stages.core import config

CONFIG = config.load(None, environ={})


@pytest.mark.parametrize(
    ("setting", "rows"),
    [
        (StageSetting("unet", 1, 1, (2, 4)), (2, 4)),
        (StageSetting("vae", 1, 1, (1,)), (1,)),
        (StageSetting("text", 1, 1, (1,)), (1,)),
    ],
)
def test_a_stage_is_measured_for_every_number_of_rows(setting: StageSetting, rows: tuple[int, ...]) -> None:
    found = list(profile.measure(setting, CONFIG, card(CONFIG), Topology.here(), float("inf"), lambda: None))
    assert tuple(point.rows for point in found) == (*rows, *reversed(rows))
    assert all(point.kind == setting.kind and point.seconds > 0 and point.cpu_s > 0 for point in found)
    assert all(point.precision in ("bf16", "f32") for point in found)


def test_a_stage_stays_loaded_and_is_measured_again() -> None:
    with profile.stage_profiler(StageSetting("vae", 1, 1, (1,)), CONFIG, card(CONFIG), Topology.here()) as stage:
        first, second = stage.measure(1), stage.measure(1)
        assert first is not None
        assert second is not None
        assert first.seconds > 0
        assert second.seconds > 0
        assert stage.measure(1, until=0.0) is None, "the time is up before it has begun"
