import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from stages.core.board import Board, BoardWriter, Doing, Row

STAGES = 3


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(STAGES)
    yield board
    board.close()


def use_cpu(nanoseconds: int) -> None:
    end = time.process_time_ns() + nanoseconds
    while time.process_time_ns() < end:
        pass


def test_a_stage_that_has_said_nothing_is_starting(board: Board) -> None:
    assert [board.read(stage) for stage in range(STAGES)] == [Row(Doing.STARTING, 0, 0, 0, 0, 0, 0, 0, 0, 0)] * STAGES


def test_a_beat_says_what_and_when(board: Board) -> None:
    before = time.monotonic_ns()
    BoardWriter(board.region, 1).beat(Doing.BUSY, job=5, step=2, steps=25)
    row = board.read(1)
    assert (row.doing, row.job, row.step, row.steps) == (Doing.BUSY, 5, 2, 25)
    assert before <= row.beat_ns <= time.monotonic_ns()


def test_each_stage_writes_its_own_row_only(board: Board) -> None:
    for stage in range(STAGES):
        BoardWriter(board.region, stage).beat(Doing.BUSY, job=stage + 1)
    assert [board.read(stage).job for stage in range(STAGES)] == [1, 2, 3]
    board.clear(1)
    assert [board.read(stage).job for stage in range(STAGES)] == [1, 0, 3]
    assert board.read(1) == Row(Doing.STARTING, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_cpu_time_counts_from_load(board: Board) -> None:
    writer = BoardWriter(board.region, 0)
    writer.forward_started()
    use_cpu(1_000_000)
    writer.forward_finished()
    writer.beat(Doing.LOADING)
    assert board.read(0).cpu_ns == 0

    began = time.process_time_ns()
    writer.loaded()
    row = board.read(0)
    assert (row.doing, row.infer_cpu_ns) == (Doing.IDLE, 0)
    writer.forward_started()
    helper = threading.Thread(target=use_cpu, args=(2_000_000,))
    helper.start()
    helper.join()
    writer.forward_finished()
    use_cpu(1_000_000)  # not the model's
    writer.busy(70)
    writer.busy(7)
    writer.beat(Doing.IDLE)
    row = board.read(0)
    assert 3_000_000 <= row.cpu_ns <= time.process_time_ns() - began
    assert 1_500_000 <= row.infer_cpu_ns <= row.cpu_ns - 1_000_000
    assert row.busy_ns == 77


def test_the_row_holds_the_words_that_are_drawn(board: Board) -> None:
    board.region.array(128 * 1, 128).view(np.uint64)[:] = range(1, 17)
    assert board.read(1) == Row(Doing.LOADING, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert board.region.nbytes == 128 * STAGES


BEACON = """
import sys
from stages.core.board import BoardWriter, Doing
from stages.core.region import Region

board = BoardWriter(Region(int(sys.argv[1])), 2)
board.beat(Doing.COMPILING, job=1 << 40, step=3, steps=4)
"""


def test_a_stage_in_another_process_is_seen(board: Board, python: Callable[..., str]) -> None:
    before = time.monotonic_ns()
    python(BEACON, board.region.fd, pass_fds=(board.region.fd,))
    row = board.read(2)
    assert (row.doing, row.job, row.step, row.steps) == (Doing.COMPILING, 1 << 40, 3, 4)
    assert before <= row.beat_ns <= time.monotonic_ns()
    assert board.read(1).beat_ns == 0


@pytest.mark.parametrize("word", range(16))
@pytest.mark.parametrize("value", [99, 1 << 40, (1 << 63) + 1, (1 << 64) - 1])
def test_whatever_stands_in_a_row_is_read_as_something(word: int, value: int, board: Board) -> None:
    BoardWriter(board.region, 1).beat(Doing.BUSY, job=5, step=2, steps=25)
    board._rows[1, word] = value
    row = board.read(1)
    assert isinstance(row.doing, Doing)
    assert all(0 <= figure < 1 << 62 for figure in msgspec.structs.astuple(row)[1:])
