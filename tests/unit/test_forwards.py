"""Which forwards are compiled, and what happens when memory for more is spent."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.runtime import Forward
from stages.unet.forwards import Forwards, Shape

A_ROW = 100
"""Bytes that a row of a compiled forward takes here."""


class FakeForward:
    outputs = ("out_sample",)

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def another(self) -> "FakeForward":
        return FakeForward(self.shape)

    def allocate(self, name: str) -> NDArray[np.float32]:
        return np.zeros(self.shape[:3], np.float32)


class Memory:
    """Counts what has been compiled."""

    def __init__(self) -> None:
        self.resident = 1000
        self.compiled: list[Shape] = []

    def compile(self, shape: Shape) -> Forward:
        self.compiled.append(shape)
        self.resident += A_ROW * shape.rows
        return cast("Forward", FakeForward(shape))


def of(rows: int, side: int = 8) -> Shape:
    return Shape(rows, side, side, 77)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def forwards(memory: Memory, max_rows: int = 16, budget: int = 1 << 30) -> Forwards:
    return Forwards(memory.compile, ("sample",), max_rows, budget, lambda: memory.resident)


def test_a_shape_is_compiled_once_and_its_batches_are_used_again(memory: Memory) -> None:
    ours = forwards(memory)
    first, second = ours.take(of(2)), ours.take(of(2))
    assert first.output is not second.output
    ours.give_back(of(2), first)
    assert ours.take(of(2)) is first
    assert memory.compiled == [of(2)]


@pytest.mark.parametrize(("rows", "worth"), [(1, True), (2, True), (3, False), (4, True), (6, False), (8, True)])
def test_only_numbers_of_rows_worth_it_are_compiled_for_sharing(rows: int, worth: bool, memory: Memory) -> None:
    assert forwards(memory).serves(of(rows)) is worth


def test_the_largest_number_of_rows_is_worth_it_whatever_it_is(memory: Memory) -> None:
    assert forwards(memory, max_rows=6).serves(of(6))


def test_a_spent_budget_leaves_what_is_compiled(memory: Memory) -> None:
    ours = forwards(memory, budget=4 * A_ROW)
    ours.give_back(of(2), ours.take(of(2)))  # the first: the model itself
    assert ours.serves(of(4))
    ours.give_back(of(4), ours.take(of(4)))
    assert ours.serves(of(4))
    assert not ours.serves(of(8))


def test_a_size_without_a_forward_takes_the_place_of_the_one_least_used(memory: Memory) -> None:
    ours = forwards(memory, budget=2 * A_ROW)
    for side in (8, 16, 8, 24):
        ours.give_back(of(2, side), ours.take(of(2, side)))
    assert [side for side in (8, 16, 24) if of(2, side) in ours] == [8, 24]


def test_what_flies_is_not_put_away(memory: Memory) -> None:
    ours = forwards(memory, budget=0)
    flying = ours.take(of(2, 8))
    ours.take(of(2, 16))
    assert of(2, 8) in ours
    ours.give_back(of(2, 8), flying)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([8, 16, 24]))), st.integers(0, 12))
def test_memory_stays_within_the_budget_or_one_forward(wanted: list[tuple[int, int]], budget: int) -> None:
    memory = Memory()
    ours = forwards(memory, budget=budget * A_ROW)
    for rows, side in wanted:
        if ours.serves(of(rows, side)) or rows == 1:
            ours.give_back(of(rows, side), ours.take(of(rows, side)))
        kept = [shape for shape in set(memory.compiled) if shape in ours]
        # The first is the model itself, and the one just wanted has to be there.
        assert sum(shape.rows * A_ROW for shape in kept) <= budget * A_ROW + 2 * 4 * A_ROW
