import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tuning.curves import Curves, Law, fit, typical
from stages.core.errors import ConfigError
from tests.unit.points import UNET, VAE, point, points

terms = st.sampled_from([0.0, 0.0001, 0.002, 0.03])


@given(terms, terms, terms, terms, terms, terms, st.integers(3, 6))
def test_a_law_is_found_again_from_what_follows_it(
    s: float, s1: float, w: float, w1: float, m: float, m1: float, n: int
) -> None:
    law = Law(s, s1, w + 0.001, w1, m, m1, 0.0)
    measured = [
        point("unet", law, threads, streams, rows)
        for threads in (1, 2, 4)
        for streams in (1, 2, 4)
        if threads % streams == 0
        for rows in [2**power for power in range(1, n)]
    ]
    found = fit(measured)
    assert found.error < 0.02
    for each in measured:
        assert found.seconds(each.threads, each.streams, each.rows) == pytest.approx(each.seconds, rel=0.1)


@given(st.lists(st.floats(1e-4, 10.0), min_size=4, max_size=4))
def test_no_term_is_negative_whatever_was_measured(seconds: list[float]) -> None:
    which = [(threads, rows) for threads in (1, 2) for rows in (2, 4)]
    law = fit(
        msgspec.structs.replace(point("unet", UNET, threads, 1, rows), seconds=measured)
        for (threads, rows), measured in zip(which, seconds, strict=True)
    )
    assert min(law.serial, law.serial_row, law.divided, law.divided_row, law.memory, law.memory_row) >= 0
    assert law.seconds(64, 64, 64) > 0


def test_nothing_measured_is_told() -> None:
    with pytest.raises(ConfigError, match="nothing was measured"):
        fit([])


def test_what_was_measured_is_believed_before_the_law() -> None:
    known = list(points())
    curves = Curves(known)
    for each in known:
        assert curves.cost(each.kind, each.threads, each.streams, each.rows).seconds == pytest.approx(each.seconds)


def test_between_rows_the_cost_lies_between() -> None:
    curves = Curves(points())
    low, middle, high = (curves.cost("unet", 2, 1, rows).seconds for rows in (8, 12, 16))
    assert middle == pytest.approx((low + high) / 2)


def test_beyond_what_was_measured_the_law_goes_on() -> None:
    curves = Curves(points())
    assert curves.cost("unet", 2, 1, 64).seconds == pytest.approx(UNET.seconds(2, 1, 64), rel=0.02)
    assert curves.cost("vae", 8).seconds == pytest.approx(VAE.seconds(8, 1, 1), rel=0.02)


def test_a_stage_never_keeps_more_cores_busy_than_it_has_threads() -> None:
    curves = Curves(points())
    for threads in (1, 2, 3, 16):
        for streams in (1, threads):
            assert 0 < curves.cost("unet", threads, streams, 8).cores <= threads / streams + 1e-9


def test_more_bandwidth_helps_only_what_draws_on_memory() -> None:
    bound = Law(0.001, 0.0, 0.0, 0.001, 0.0, 0.004, 0.0)
    narrow = Curves(points(unet=bound), by_law=True)
    wide = Curves(points(unet=bound), bandwidth=4.0, by_law=True)
    assert wide.cost("unet", 2, 2, 8).seconds < narrow.cost("unet", 2, 2, 8).seconds / 2
    assert wide.cost("vae", 2).seconds == pytest.approx(narrow.cost("vae", 2).seconds)


def test_typical_is_the_geometric_mean() -> None:
    assert typical([0.5, 2.0]) == pytest.approx(1.0)
    assert typical([]) == 1.0
