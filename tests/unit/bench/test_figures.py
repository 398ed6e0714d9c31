"""Figures of loads that are known to the last digit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bench.drive import Played, Record
from orchestrator.bench.figures import figures, percentiles
from stages.core import wire


def record(kind: str, due_s: float, done_s: float, images: int = 1, code: str | None = None) -> Record:
    timings = [wire.Timings(0.5, 0.1, 2.0, 1.0, 3.6)] * images
    first = None if code else due_s + (done_s - due_s) / images
    return Record(kind, due_s, due_s + 0.25, due_s, first, done_s, [] if code else timings, code)


PLAYED = Played(
    [
        record("short", 0.0, 1.0),
        record("short", 1.0, 4.0, images=2),
        record("long", 1.0, 9.0),
        record("long", 2.0, 2.0, code="overloaded"),
    ],
    began=0.0,
    span_s=10.0,
)


def test_rates_count_images_and_shares_count_prompts() -> None:
    found = figures(PLAYED)
    assert (found.all.prompts, found.all.images, found.all.images_per_s) == (4, 4, 0.4)
    assert (found.all.refused, found.all.refused_share) == ({"overloaded": 1}, 0.25)
    assert found.late_s == 0.25


def test_latency_is_of_prompts_that_were_done() -> None:
    latency = figures(PLAYED).all.latency_s
    assert latency is not None
    assert (latency.p50, latency.mean, latency.max) == (3.0, 4.0, 8.0)
    first = figures(PLAYED).kinds["short"].first_image_s
    assert first is not None
    assert first.max == 1.5


def test_every_kind_has_figures_of_its_own() -> None:
    kinds = figures(PLAYED).kinds
    assert list(kinds) == ["short", "long"]
    assert (kinds["short"].images, kinds["short"].refused_share) == (3, 0.0)
    assert (kinds["long"].images, kinds["long"].refused_share) == (1, 0.5)
    work = kinds["long"].an_image
    assert work is not None
    assert (work.queue_s, work.unet_s) == (0.5, 2.0)


def test_where_nothing_was_done_there_are_no_times() -> None:
    found = figures(Played([record("a", 0.0, 0.0, code="overloaded")], 0.0, 0.0))
    assert (found.all.latency_s, found.all.first_image_s, found.all.an_image) == (None, None, None)
    assert found.all.images_per_s == 0.0
    assert percentiles([None]) is None
    assert figures(Played([], 0.0, 0.0)).all.refused_share == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order_and_those_of_numpy(seconds: list[float]) -> None:
    found = percentiles(seconds)
    assert found is not None
    assert min(seconds) <= found.p50 <= found.p90 <= found.p99 <= found.max == max(seconds)
    assert found.p90 == pytest.approx(np.percentile(seconds, 90))
