"""Remembered figures: found under their facts only, and never in the way."""

from pathlib import Path

import msgspec
import pytest

from stages.core import figures
from stages.core.figures import FigureStore


class Cost(msgspec.Struct):
    seconds: float


def test_they_come_back_under_the_same_facts(tmp_path: Path) -> None:
    FigureStore("costs", tmp_path).write(("cpu", 1), Cost(0.5))
    assert FigureStore("costs", tmp_path).read(("cpu", 1), Cost) == Cost(0.5)
    assert FigureStore("costs", tmp_path).read(("cpu", 2), Cost) is None
    assert FigureStore("other", tmp_path).read(("cpu", 1), Cost) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"seconds": "long"}', b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_was_never_there(content: bytes, tmp_path: Path) -> None:
    FigureStore("costs", tmp_path).write("facts", Cost(0.5))
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(content)
    assert FigureStore("costs", tmp_path).read("facts", Cost) is None


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "costs").write_text("a file")
    FigureStore("costs", tmp_path).write("facts", Cost(0.5))
    assert FigureStore("costs", tmp_path).read("facts", Cost) is None


def test_the_newest_figures_replace_older_ones(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        FigureStore("costs", tmp_path).write("facts", Cost(seconds))
    assert FigureStore("costs", tmp_path).read("facts", Cost) == Cost(2.0)
    assert len(list(tmp_path.rglob("*"))) == 2  # the folder and one file: no part is left


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert figures.cache_folder() == tmp_path / "triptych"


def test_other_weights_are_told_from_these(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.bin").write_bytes(b"weights")
    first = figures.weights(tmp_path / "a.xml")
    assert figures.weights(tmp_path / "a.xml") == first != figures.weights(tmp_path / "b.xml")
    (tmp_path / "a.bin").write_bytes(b"other weights")
    assert figures.weights(tmp_path / "a.xml") != first
