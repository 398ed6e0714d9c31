import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.routing.estimate import Estimate, Pace
from stages.core.costs import Cost, CostCurves
from stages.core.route import TEXT_TO_IMAGE
from stages.core.tasks import TaskName

SECOND = 1_000_000_000
TASKS: tuple[TaskName, ...] = tuple(leg.task for leg in TEXT_TO_IMAGE)


def learned() -> Estimate:
    """An encoding takes a second, a row of a forward 10, a decoding 3."""
    estimate = Estimate()
    for task, seconds in zip(TASKS, (1, 10, 3), strict=True):
        estimate.learn(task, seconds * SECOND)
    return estimate


@pytest.mark.parametrize("missing", TASKS)
def test_it_is_complete_when_every_task_was_seen(missing: TaskName) -> None:
    estimate = Estimate()
    guess = estimate.left(TASKS, 7, 0)
    for task in TASKS:
        if task != missing:
            estimate.learn(task, 1000 * SECOND)
    assert not estimate.complete
    assert estimate.left(TASKS, 7, 0) == guess  # nothing is made of half of it
    estimate.learn(missing, 1000 * SECOND)
    assert estimate.complete
    assert estimate.left(TASKS, 7, 0) == pytest.approx(9000)


@pytest.mark.parametrize(
    ("done", "rows", "seconds"),
    [(2, 0, 3), (2, 25, 3), (1, 4, 43), (1, 0, 3), (0, 4, 44), (0, 0, 4)],
)
def test_a_job_costs_what_it_has_before_it(done: int, rows: int, seconds: float) -> None:
    assert learned().left(TASKS[done:], rows, 0) == pytest.approx(seconds)


def test_a_forward_of_several_rows_counts_for_each() -> None:
    estimate = learned()
    for _ in range(800):
        estimate.learn("denoise", 8 * SECOND, rows=4)
    assert estimate.left(TASKS[1:], 10, 0) == pytest.approx(20 + 3)


def test_the_first_measurements_weigh_alike_and_what_an_earlier_run_left_as_one_of_them() -> None:
    for estimate in (learned(), Estimate(learned().costs)):
        estimate.learn("decode", 13 * SECOND)
        assert estimate.left(TASKS[2:], 0, 0) == pytest.approx(8)
        estimate.learn("decode", 5 * SECOND)
        assert estimate.left(TASKS[2:], 0, 0) == pytest.approx(7)


def test_a_single_measurement_says_little_among_many_and_all_together_replace_what_was() -> None:
    estimate = learned()
    for _ in range(100):
        estimate.learn("decode", 3 * SECOND)
    estimate.learn("decode", 103 * SECOND)
    assert estimate.left(TASKS[2:], 0, 0) == pytest.approx(6)
    for _ in range(200):
        estimate.learn("decode", 10 * SECOND)
    assert estimate.left(TASKS[2:], 0, 0) == pytest.approx(10, rel=0.01)


@given(st.lists(st.integers(0, 1000 * SECOND), min_size=1))
def test_the_mean_lies_within_what_was_seen(measured: list[int]) -> None:
    estimate = Estimate()
    for task in TASKS:
        for nanoseconds in measured:
            estimate.learn(task, nanoseconds)
    found = estimate.left(TASKS[2:], 0, 0)
    assert min(measured) / SECOND - 0.001 <= found <= max(measured) / SECOND + 0.001


@given(st.sampled_from([Estimate(), learned()]), st.integers(0, 500), st.integers(0, 500))
def test_more_work_takes_longer_and_less_is_left_at_every_stage(estimate: Estimate, rows: int, more: int) -> None:
    left = [estimate.left(TASKS[done:], rows, 0) for done in range(3)]
    assert left == sorted(left, reverse=True)
    assert left[2] > 0
    for done, before in zip(range(3), left, strict=True):
        assert estimate.left(TASKS[done:], rows + more, 0) >= before


def test_each_size_has_a_cost_of_its_own() -> None:
    estimate = learned()
    estimate.learn("denoise", 40 * SECOND, pixels=4096)
    assert estimate.left(TASKS[1:], 2, 4096) == pytest.approx(80 + 3)


def test_a_size_not_seen_costs_by_its_pixels() -> None:
    estimate = Estimate(
        [Cost("encode_text", 0, 1.0), Cost("denoise", 100, 2.0), Cost("denoise", 1000, 30.0), Cost("decode", 100, 5.0)]
    )
    assert estimate.left(TASKS, 1, 200) == pytest.approx(1 + 4 + 10)
    assert estimate.left(TASKS, 1, 2000) == pytest.approx(1 + 60 + 100)


def test_between_two_sizes_equally_near_the_smaller_one_tells_whatever_was_seen_first() -> None:
    costs = [
        Cost("encode_text", 0, 1.0),
        Cost("decode", 100, 0.0),
        Cost("denoise", 100, 1.0),
        Cost("denoise", 300, 9.0),
    ]
    assert CostCurves(costs).cost("denoise", 200) == CostCurves(costs[::-1]).cost("denoise", 200) == 2.0


def test_before_anything_has_run_larger_pictures_are_more_work() -> None:
    guess = CostCurves()
    rows = 40
    small, large = guess.left(TASKS[1:], rows, 512 * 512), guess.left(TASKS[1:], rows, 1024 * 1024)
    assert (small, large) == pytest.approx((rows * 0.5 + 1.5, 4 * (rows * 0.5 + 1.5)))
    assert guess.left(TASKS, rows, 1024 * 1024) == pytest.approx(large + 0.01)


def test_what_was_learned_can_be_taken_up_again() -> None:
    estimate = learned()
    estimate.learn("denoise", 40 * SECOND, pixels=4096)
    again = Estimate(estimate.costs)
    assert again.complete
    assert set(again.costs) == set(estimate.costs)
    assert again.left(TASKS, 3, 4096) == estimate.left(TASKS, 3, 4096)


def test_the_pace_is_what_passes_for_a_second_of_work_while_there_is_more() -> None:
    pace = Pace()
    for number in range(200):
        assert number > 20 or pace.value == 1.0, "a few pieces say nothing"
        pace.learn(2.0, number * SECOND, more=True)
    assert pace.value == pytest.approx(0.5)


def test_time_in_which_stages_had_nothing_to_do_is_no_pace() -> None:
    pace = Pace()
    now_ns = 0
    for _ in range(50):
        for more in (True, True, False):
            now_ns += SECOND
            pace.learn(1.0, now_ns, more)
        now_ns += 1000 * SECOND
    assert pace.value == pytest.approx(1.0)


def test_a_new_pace_is_learned_when_it_changes() -> None:
    pace = Pace()
    for number in range(100):
        pace.learn(2.0, number * SECOND, more=True)
    for number in range(2000):
        pace.learn(1.0, (100 + number) * SECOND, more=True)
    assert pace.value == pytest.approx(1.0, rel=0.01)
