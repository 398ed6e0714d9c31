"""The line protocol, both ends, with a peer that only pretends to draw."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison import worker
from benchmarks.comparison.pipe import Worker, WorkerLost
from benchmarks.comparison.systems import equal_parts, masks
from benchmarks.comparison.work import Pixels, Work, prompt
from stages.core import cores

DEADLINE_S = 60.0

WORK = Work(model="", torch=None, width=8, height=8, steps=1, guidance_scale=1.0, negative_prompt="", precision="f32")


def plain(_: str, seed: int) -> Pixels:
    return np.full((8, 8, 3), seed, np.uint8)


def test_pictures_are_drawn_by_their_numbers() -> None:
    drawn: list[tuple[str, int]] = []
    answers = io.StringIO()
    worker.serve(lambda text, seed: drawn.append((text, seed)) or plain(text, seed), ["draw 3 2\n"], answers)
    assert drawn == [(prompt(3), 3), (prompt(4), 4)]
    assert answers.getvalue() == "ready\ndone\n"


def test_a_picture_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    worker.serve(plain, [f"save 9 {path}\n"], io.StringIO())
    assert np.asarray(Image.open(path)).tolist() == plain("", 9).tolist()


@pytest.mark.parametrize("line", ["", "draw", "draw 1", "paint 1 2", "draw one 2"])
def test_other_lines_are_no_work(line: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|invalid literal"):
        worker.serve(plain, [line], io.StringIO())


Start = Callable[[str], Worker]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """The real worker process, with a module of this source as the peer."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(worker.__file__).parents[2]}")
    started: list[Worker] = []

    def run(source: str) -> Worker:
        (tmp_path / "peer_of_a_test.py").write_text(f"import numpy\n{source}")
        command = [
            sys.executable,
            "-m",
            "benchmarks.comparison.worker",
            "peer_of_a_test",
            msgspec.json.encode(WORK).decode(),
        ]
        started.append(Worker("fake", [*command, cores.render(list(cores.allowed())[:1])]))
        return started[-1]

    yield run
    for one in started:
        one.close()


def test_a_peer_may_print_what_it_likes(start: Start, tmp_path: Path) -> None:
    fake = start(
        """
print("loading")
def load(work):
    def draw(prompt, seed):
        print("done, or nearly")
        return numpy.full((work.height, work.width, 3), seed, numpy.uint8)
    return draw
"""
    )
    fake.expect("ready", DEADLINE_S)
    assert len(cores.read_back(fake.pid)) == 1
    fake.draw(0, 3)
    fake.expect("done", DEADLINE_S)
    fake.save(5, tmp_path / "5.png")
    fake.expect("done", DEADLINE_S)
    assert np.asarray(Image.open(tmp_path / "5.png")).max() == 5


def test_a_peer_that_ends_says_why(start: Start) -> None:
    fake = start("def load(work):\n    raise MemoryError('no room for the weights')")
    with pytest.raises(WorkerLost, match=r"^fake: ended with status 1: MemoryError: no room for the weights$"):
        fake.expect("ready", DEADLINE_S)
    with pytest.raises(WorkerLost, match="no room for the weights"):
        fake.draw(0, 1)


def test_a_peer_that_hangs_is_waited_for_only_so_long(start: Start) -> None:
    fake = start("import sys\ndef load(work):\n    sys.stdin.read()")
    with pytest.raises(WorkerLost, match="fake: not ready within 0 s"):
        fake.expect("ready", 0.0)


def test_pictures_and_cores_are_dealt_out() -> None:
    assert [equal_parts(5, 2), equal_parts(1, 2), equal_parts(4, 1)] == [[3, 2], [1, 0], [4]]
    assert masks({0, 1, 2}, 1) == [[]]
    assert masks({0, 2, 4, 5, 6}, 2) == [["0,2,4"], ["5-6"]]
