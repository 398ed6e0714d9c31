"""Ratios of systems, and what is sure of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.comparison.ratios import ratio

FIGURES = st.lists(st.tuples(*[st.floats(0.01, 100.0)] * 2), min_size=1, max_size=8)


def test_a_drift_of_the_machine_cancels() -> None:
    found = ratio([2.0, 4.0, 1.0], [1.0, 2.0, 0.5])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)


def test_one_odd_round_moves_the_interval_and_not_the_median() -> None:
    found = ratio([1.0, 1.0, 1.0, 1.0, 9.0], [1.0] * 5)
    assert found.median == 1.0
    assert found.low == 1.0 < found.high


@given(FIGURES)
def test_the_interval_lies_among_the_ratios_and_around_their_median(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    ratios = [mine / other for mine, other in pairs]
    found = ratio(ours, theirs)
    assert min(ratios) <= found.low <= found.median <= found.high <= max(ratios)


@given(FIGURES)
def test_the_same_rounds_give_the_same_interval(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    assert ratio(ours, theirs) == ratio(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "cell"),
    [([1.5], "1.50"), ([1.0, 2.0], "1.50 (1.00 to 2.00, 2 rounds)"), ([2.0, 2.0, 2.0], "2.00 (2.00 to 2.00)")],
)
def test_a_cell_claims_no_more_than_the_rounds_say(ours: list[float], cell: str) -> None:
    assert str(ratio(ours, [1.0] * len(ours))) == cell


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_rounds_have_to_pair_up(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no rounds|zip\(\)"):
        ratio(ours, theirs)
