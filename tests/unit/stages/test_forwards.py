"""Which forwards are compiled, and what happens when memory for more is spent."""

import weakref
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.core.errors import ModelError
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
    """Counts what has been compiled. What is freed goes back to the system, or is `kept` and used again."""

    def __init__(self, model: int = 0, *, kept: bool = False) -> None:
        self.resident = 1000
        self.model = model
        """Bytes that the first forward takes beside its rows."""
        self.kept = kept
        self.unused = 0
        self.compiled: list[Shape] = []
        self.broken: set[Shape] = set()

    def compile(self, shape: Shape) -> Forward:
        if shape in self.broken:
            raise ModelError("cannot be compiled")
        needed = A_ROW * shape.rows + (0 if self.compiled else self.model)
        self.compiled.append(shape)
        used_again = min(needed, self.unused)
        self.unused -= used_again
        self.resident += needed - used_again
        forward = FakeForward(shape)
        weakref.finalize(forward, self._free, needed)
        return cast("Forward", forward)

    def _free(self, nbytes: int) -> None:
        if self.kept:
            self.unused += nbytes
        else:
            self.resident -= nbytes


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
    ours.give_back(of(2, 8), ours.take(of(2, 8)))
    in_flight = ours.take(of(2, 16))
    ours.take(of(2, 24))
    assert of(2, 16) in ours
    ours.give_back(of(2, 16), in_flight)
    ours.take(of(2, 32))
    assert of(2, 16) not in ours


def test_the_model_itself_is_no_part_of_what_others_are_expected_to_take() -> None:
    memory = Memory(model=50 * A_ROW)
    ours = forwards(memory, budget=12 * A_ROW)
    ours.give_back(of(2), ours.take(of(2)))
    for rows in (4, 8):
        assert ours.serves(of(rows)), "it fits"
        ours.give_back(of(rows), ours.take(of(rows)))
    assert not ours.serves(of(16))
    assert all(of(rows) in ours for rows in (2, 4, 8))


def test_the_first_stays_for_it_would_leave_no_room(memory: Memory) -> None:
    ours = forwards(memory, budget=2 * A_ROW)
    for side in (8, 16, 24, 32):
        ours.give_back(of(2, side), ours.take(of(2, side)))
    assert [side for side in (8, 16, 24, 32) if of(2, side) in ours] == [8, 32]


def test_a_budget_of_nothing_has_room_for_nothing(memory: Memory) -> None:
    ours = forwards(memory, budget=0)
    ours.give_back(of(2), ours.take(of(2)))
    assert not ours.serves(of(4))


def test_what_a_forward_took_is_remembered_when_it_is_put_away(memory: Memory) -> None:
    ours = forwards(memory, budget=5 * A_ROW)
    for shape in (of(2), of(4), of(1, 16), of(1, 24)):  # the third takes the place of the second
        ours.give_back(shape, ours.take(shape))
    assert of(4) not in ours
    assert not ours.serves(of(4)), "it is known to take four"


def test_what_was_put_away_for_its_size_takes_no_room_from_others(memory: Memory) -> None:
    ours = forwards(memory, budget=10 * A_ROW)
    for shape in (of(2), of(12, 64), of(1, 16)):  # the second did not fit, but had to be
        ours.give_back(shape, ours.take(shape))
    assert of(12, 64) not in ours
    assert ours.serves(of(4))


def test_a_batch_whose_forward_raised_is_not_used_again_and_keeps_no_room(memory: Memory) -> None:
    ours = forwards(memory, budget=2 * A_ROW)
    ours.give_back(of(2, 8), ours.take(of(2, 8)))
    raised = ours.take(of(2, 16))
    ours.discard(of(2, 16))
    again = ours.take(of(2, 16))
    assert again is not raised
    ours.give_back(of(2, 16), again)
    ours.take(of(2, 24))
    assert of(2, 16) not in ours


def test_a_batch_that_cannot_be_made_is_not_in_flight(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = forwards(memory, budget=2 * A_ROW)
    ours.give_back(of(2, 8), ours.take(of(2, 8)))
    first = ours.take(of(2, 16))
    with monkeypatch.context() as patch:
        patch.setattr(FakeForward, "allocate", None)
        with pytest.raises(TypeError):
            ours.take(of(2, 16))
        with pytest.raises(TypeError):
            ours.take(of(2, 24))
    assert of(2, 24) not in ours
    ours.give_back(of(2, 16), first)
    ours.give_back(of(2, 24), ours.take(of(2, 24)))
    assert of(2, 16) not in ours


def test_what_cannot_be_compiled_is_not_put_together_again_but_tried_when_it_must_be(memory: Memory) -> None:
    ours = forwards(memory)
    memory.broken = {of(4)}
    assert ours.serves(of(4))
    with pytest.raises(ModelError):
        ours.take(of(4))
    assert not ours.serves(of(4))
    memory.broken = set()
    ours.give_back(of(4), ours.take(of(4)))
    assert ours.serves(of(4))


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([8, 16, 24])), max_size=30),
    st.integers(0, 12),
    st.sampled_from([0, 30 * A_ROW]),
    st.booleans(),
)
def test_memory_stays_within_the_budget_or_one_forward(
    wanted: list[tuple[int, int]], budget: int, model: int, kept: bool
) -> None:
    memory = Memory(model, kept=kept)
    ours = forwards(memory, budget=budget * A_ROW)
    ours.give_back(of(2), ours.take(of(2)))  # the first is the model itself
    before = memory.resident
    for rows, side in wanted:
        if ours.serves(of(rows, side)) or rows == 1:
            ours.give_back(of(rows, side), ours.take(of(rows, side)))
        # The one just wanted has to be there.
        assert memory.resident - before <= (budget + 4) * A_ROW
