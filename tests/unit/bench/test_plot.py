"""The picture: occupancy is computed, the rest is drawn without complaint; without matplotlib, a line says so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.bench import plot
from orchestrator.bench.drive import Played, Record
from orchestrator.bench.measure import LoadLevel, Measured, Round
from orchestrator.bench.memory import Sample
from orchestrator.bench.report import level_figures
from orchestrator.bench.workload import Closed
from orchestrator.bottleneck import recent
from orchestrator.output import CannotWrite
from orchestrator.trace.recording import Level as Fullness
from stages.core import wire
from tests.unit.statuses import status
from tests.unit.test_bottleneck import STAGE
from tests.unit.trace.test_recording import MS, life, recording

TIMINGS = wire.Timings(0.1, 0.1, 0.5, 0.3, 1.0)


def measured(*in_flight: int) -> Measured:
    levels = []
    for number in in_flight:
        records = [Record("kind", 0.0, 0.0, 0.1, 1.0 * n, 1.0 * n, [TIMINGS]) for n in range(1, number + 1)]
        one = Round(Played(records, 0.0, float(number)), recent([STAGE]))
        told = recording(Fullness(1 * MS, 2, 3), *life(1, 0), *life(2, 50), ended=100)
        levels.append(LoadLevel(Closed(number), [one], told))
    return Measured(levels, None, status())


def draw(path: Path, found: Measured, samples: list[Sample]) -> None:
    figures = [level_figures(level, found.after) for level in found.levels]
    plot.draw(path, "a title", found, figures, samples)


def test_occupancy_is_the_share_of_every_part_of_the_time() -> None:
    told = recording(*life(1, 0), ended=40)
    assert plot.occupancy(told, "unet", 8).tolist() == pytest.approx([0, 1, 1, 1, 1, 0, 0, 0])
    assert plot.occupancy(told, "vae", 4).tolist() == pytest.approx([0, 0, 0.4, 0.1])
    assert plot.occupancy(told, "text", 1).tolist() == pytest.approx([0.05])


def test_the_queue_is_the_most_that_waited_in_every_part_of_the_time() -> None:
    told = recording(Fullness(5 * MS, 3, 0), Fullness(11 * MS, 1, 0), Fullness(12 * MS, 0, 0), began=10, ended=50)
    assert plot.queue(told, 4).tolist() == [3, 0, 0, 0]
    assert plot.queue(recording(Fullness(5 * MS, 3, 0), began=10, ended=50), 2).tolist() == [3, 3]
    assert plot.queue(recording(ended=50), 2).tolist() == [0, 0]


@pytest.mark.parametrize("in_flight", [(1,), (1, 4, 8)])
def test_one_level_and_several_are_drawn(in_flight: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "bench.png"
    draw(path, measured(*in_flight), [Sample(0.0, 0), Sample(1.0, 1 << 30), Sample(2.0, 1 << 29)])
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (1200, 1080, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_load_of_which_nothing_came_is_drawn_too(tmp_path: Path) -> None:
    records = [Record("kind", 0.0, 0.0, None, None, 0.1, [], "overloaded")]
    level = LoadLevel(Closed(1), [Round(Played(records, 0.0, 0.1), recent([STAGE]))], None)
    draw(tmp_path / "bench.png", Measured([level], None, status()), [])
    assert (tmp_path / "bench.png").stat().st_size > 0


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot write the plot to"):
        draw(tmp_path / "none" / "bench.png", measured(1), [])
