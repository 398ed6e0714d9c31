from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.arena import Bytes
from stages.core.checkpoint import MEMORY_ROWS, Checkpoint, Floats, Saved, slot_bytes

SHAPE = (4, 3, 5)
LATENTS_BYTES = 4 * 3 * 5 * 4
JOB = 7
FIRST_SAVE = 256
"""The final latents take 240 bytes, rounded up to whole lines."""
SAVE_BYTES = 64 + 1728
"""A header, and seven times the latents, rounded up."""

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))


class State(NamedTuple):
    """What a U-Net keeps after `step` steps."""

    step: int
    latents: Floats
    memory: Floats


def state(step: int, rows: int = 2, shape: tuple[int, int, int] = SHAPE) -> State:
    noise = np.random.default_rng(step)
    return State(step, noise.random(shape, np.float32), noise.random((rows, *shape), np.float32))


def payload(shape: tuple[int, int, int] = SHAPE) -> Bytes:
    return np.zeros(slot_bytes(shape), np.uint8)


def save(into: Bytes, *states: State, job: int = JOB, shape: tuple[int, int, int] = SHAPE) -> None:
    for one in states:
        Checkpoint(into, job, shape).save(*one)


def restore(found: Bytes, job: int = JOB, shape: tuple[int, int, int] = SHAPE) -> Saved | None:
    return Checkpoint(found, job, shape).restore()


def same(saved: Saved | None, expected: State) -> bool:
    return (
        saved is not None
        and saved.step == expected.step
        and np.array_equal(saved.latents, expected.latents)
        and np.array_equal(saved.memory, expected.memory)
    )


def save_of(step: int) -> int:
    """Where the save of a step begins."""
    return FIRST_SAVE + step % 2 * SAVE_BYTES


def test_a_slot_is_laid_out_as_it_is_drawn() -> None:
    found = payload()
    assert len(found) == FIRST_SAVE + 2 * SAVE_BYTES
    one, two = state(1), state(2)
    save(found, one, two)
    for kept in (one, two):
        start = save_of(kept.step)
        header = found[start : start + 64].view(np.uint64)
        assert header[:3].tolist() == [JOB, kept.step, 2]
        body = found[start + 64 : start + 64 + 3 * LATENTS_BYTES].view(np.float32).reshape(3, *SHAPE)
        assert np.array_equal(body, np.stack([kept.latents, *kept.memory]))


@given(SHAPES, st.integers(0, MEMORY_ROWS), st.integers(1, 6))
def test_the_newest_save_is_found(shape: tuple[int, int, int], rows: int, steps: int) -> None:
    found = payload(shape)
    for step in range(1, steps + 1):
        kept = state(step, rows, shape)
        save(found, kept, shape=shape)
        restored = restore(found, shape=shape)
        assert same(restored, kept)
        assert restored is not None
        assert restored.memory.shape == (rows, *shape)


def test_an_empty_slot_holds_nothing() -> None:
    assert restore(payload()) is None


@given(st.binary(min_size=2 * SAVE_BYTES, max_size=2 * SAVE_BYTES))
def test_what_an_earlier_tenant_left_is_nothing(noise: bytes) -> None:
    found = payload()
    found[FIRST_SAVE:] = np.frombuffer(noise, np.uint8)
    assert restore(found) is None
    save(found, state(1))
    assert same(restore(found), state(1))


@pytest.mark.parametrize("rows", [MEMORY_ROWS + 1, 1 << 40, (1 << 64) - 1])
def test_a_header_of_nonsense_is_nothing(rows: int) -> None:
    found = payload()
    save(found, state(1))
    found[save_of(1) : save_of(1) + 64].view(np.uint64)[2] = rows
    assert restore(found) is None


@given(st.integers(0, 31) | st.integers(64, 64 + 3 * LATENTS_BYTES - 1), st.integers(0, 7))
def test_one_changed_bit_of_the_newest_leaves_the_one_before(place: int, bit: int) -> None:
    found = payload()
    save(found, state(4), state(5))
    found[save_of(5) + place] ^= 1 << bit
    assert same(restore(found), state(4))
    found[save_of(4) + place] ^= 1 << bit
    assert restore(found) is None


@given(st.integers(0, SAVE_BYTES), st.integers(0, SAVE_BYTES), st.sampled_from([0, 2, 6]))
def test_whenever_the_writer_dies_one_save_is_whole(first: int, last: int, rows: int) -> None:
    """Some of the bytes of a save were written and some not, whichever they are."""
    before = payload()
    older, newer = state(4, rows), state(5, 6 - rows)
    save(before, state(3), older)
    after = before.copy()
    save(after, newer)
    torn = before.copy()
    torn[save_of(5) + first : save_of(5) + last] = after[save_of(5) + first : save_of(5) + last]
    whole = np.array_equal(torn, after)
    assert same(restore(torn), newer if whole else older)


def test_a_writer_that_dies_in_the_body_has_voided_the_save_first() -> None:
    """Else an old header and half of a new body would hang on the checksum alone."""

    class Death(Exception):
        pass

    class Memory(np.ndarray):
        def ravel(self, order: object = "C") -> Floats:
            raise Death

    found = payload()
    save(found, state(3))
    checkpoint = Checkpoint(found, JOB, SHAPE)
    with pytest.raises(Death):
        checkpoint.save(5, state(5).latents, state(5).memory.view(Memory))
    assert found[save_of(5) : save_of(5) + 64].view(np.uint64)[3] == 0
    assert restore(found) is None


def test_a_job_does_not_find_the_save_of_another() -> None:
    found = payload()
    save(found, state(1), state(2), job=JOB)
    assert restore(found, JOB + 1) is None
    save(found, state(1, rows=0), job=JOB + 1)
    assert same(restore(found, JOB + 1), state(1, rows=0))
    assert same(restore(found, JOB), state(2))


def test_a_process_goes_on_after_the_step_of_the_one_before() -> None:
    found = payload()
    save(found, state(1), state(2))
    Checkpoint(found, JOB, SHAPE).save(*state(3))
    assert same(restore(found), state(3))
    found[save_of(3)] ^= 1
    assert same(restore(found), state(2))


def test_what_is_found_is_a_copy() -> None:
    found = payload()
    save(found, state(2))
    restored = restore(found)
    assert restored is not None
    restored.latents[...] = 0
    restored.memory[...] = 0
    assert same(restore(found), state(2))


@given(SHAPES, st.integers(0, MEMORY_ROWS))
def test_final_latents_and_saves_lie_apart(shape: tuple[int, int, int], rows: int) -> None:
    found = payload(shape)
    save(found, state(1, rows, shape), state(2, rows, shape), shape=shape)
    final = state(9, 0, shape).latents
    nbytes = Checkpoint(found, JOB, shape).finish(final)
    assert nbytes == final.nbytes
    assert found[:nbytes].tobytes() == final.tobytes()
    assert same(restore(found, shape=shape), state(2, rows, shape))
    save(found, state(3, MEMORY_ROWS, shape), state(4, MEMORY_ROWS, shape), shape=shape)
    assert found[:nbytes].tobytes() == final.tobytes()


def test_a_larger_slot_serves_a_smaller_picture() -> None:
    found = payload((4, 9, 9))
    save(found, state(1), state(2))
    assert same(restore(found), state(2))
