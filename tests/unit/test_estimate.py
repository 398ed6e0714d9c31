import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.estimate import Estimate
from stages.core.wire import KINDS, Kind

SECOND = 1_000_000_000
JOBS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 200)), max_size=10)


def learned(text: float = 1, unet: float = 10, vae: float = 3) -> Estimate:
    estimate = Estimate()
    for kind, seconds in (("text", text), ("unet", unet), ("vae", vae)):
        estimate.learn(kind, round(seconds * SECOND))  # type: ignore[arg-type]
    return estimate


@pytest.mark.parametrize("missing", KINDS)
def test_nothing_is_told_before_every_kind_of_work_was_seen(missing: Kind) -> None:
    estimate = Estimate()
    for kind in KINDS:
        if kind != missing:
            estimate.learn(kind, SECOND)
    assert estimate.seconds([("vae", 0)]) is None
    estimate.learn(missing, SECOND)
    assert estimate.seconds([("vae", 0)]) == 1.0


@pytest.mark.parametrize(
    ("jobs", "seconds"),
    [
        ([], 0),
        ([("vae", 0)], 3),
        ([("vae", 25)], 3),
        ([("unet", 4)], 43),
        ([("unet", 0)], 3),
        ([("text", 4)], 44),
        ([("text", 1), ("unet", 2), ("vae", 0)], 14 + 23 + 3),
    ],
)
def test_a_job_costs_what_it_has_before_it(jobs: list[tuple[Kind, int]], seconds: float) -> None:
    assert learned().seconds(jobs) == pytest.approx(seconds)


def test_the_newest_measurement_counts_a_fifth() -> None:
    estimate = learned(vae=10)
    estimate.learn("vae", 20 * SECOND)
    assert estimate.seconds([("vae", 0)]) == pytest.approx(12)
    estimate.learn("vae", 2 * SECOND)
    assert estimate.seconds([("vae", 0)]) == pytest.approx(10)


@given(st.lists(st.integers(0, 1000 * SECOND), min_size=1))
def test_the_mean_lies_within_what_was_seen(measured: list[int]) -> None:
    estimate = Estimate()
    for kind in KINDS:
        for nanoseconds in measured:
            estimate.learn(kind, nanoseconds)
    found = estimate.seconds([("vae", 0)])
    assert found is not None
    assert min(measured) / SECOND - 0.001 <= found <= max(measured) / SECOND + 0.001


@given(JOBS, JOBS)
def test_more_work_takes_longer(some: list[tuple[Kind, int]], more: list[tuple[Kind, int]]) -> None:
    seconds = [learned().seconds(jobs) or 0.0 for jobs in (some, more, some + more)]
    assert seconds[2] == pytest.approx(seconds[0] + seconds[1])
