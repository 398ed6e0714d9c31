"""Who shares a forward."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.batching import pack, worth_compiling


class Job(NamedTuple):
    number: int
    rows: int
    size: int = 64


def packed(jobs: list[Job], max_rows: int) -> list[Job]:
    return pack(
        jobs, max_rows, lambda one, other: one.size == other.size, lambda group, rows: worth_compiling(rows, max_rows)
    )


@pytest.mark.parametrize(
    ("rows", "max_rows", "together"),
    [
        ([], 4, []),
        ([2], 2, [0]),
        ([2, 2], 2, [0]),
        ([2, 2, 2], 4, [0, 1]),
        ([2, 2, 2], 8, [0, 1]),  # six rows are not worth it
        ([2, 2, 2], 6, [0, 1, 2]),  # unless they are the most there may be
        ([2, 1, 1, 2], 4, [0, 1, 2]),
        ([1, 2, 1], 4, [0, 1, 2]),
        ([1, 2], 4, [0]),
        ([2, 4, 2], 4, [0, 2]),
    ],
)
def test_the_first_takes_with_it_who_fits(rows: list[int], max_rows: int, together: list[int]) -> None:
    jobs = [Job(number, count) for number, count in enumerate(rows)]
    assert [job.number for job in packed(jobs, max_rows)] == together


def test_only_the_same_size_shares() -> None:
    jobs = [Job(0, 2, 64), Job(1, 2, 128), Job(2, 2, 64)]
    assert [job.number for job in packed(jobs, 4)] == [0, 2]


@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([64, 128])), min_size=1), st.integers(2, 64))
def test_the_first_always_goes_in_order_and_within_bounds(jobs: list[tuple[int, int]], max_rows: int) -> None:
    ranked = [Job(number, rows, size) for number, (rows, size) in enumerate(jobs)]
    group = packed(ranked, max_rows)
    assert group[0] == ranked[0]
    assert group == sorted(group)
    assert {job.size for job in group} == {ranked[0].size}
    rows = sum(job.rows for job in group)
    assert rows <= max_rows
    assert len(group) == 1 or worth_compiling(rows, max_rows)
