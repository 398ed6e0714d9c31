"""The self-test compares with f32, remembers what it found, and forgets it when anything it depends on changes."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.numerics import LIMIT, Arrays, SelfTest, difference


class FakeForward:
    """y = 2 x, off by a factor; counts how often it is run."""

    inputs = ("x", "ids")
    outputs = ("y",)
    precision = "bf16"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.runs = 0
        self.arrays: Arrays = {}

    def allocate(self, name: str) -> NDArray[np.generic]:
        self.arrays[name] = np.zeros(8, np.int64 if name == "ids" else np.float32)
        return self.arrays[name]

    def infer(self) -> bool:
        self.runs += 1
        self.arrays["y"][...] = 2 * self.arrays["x"] * self.factor + self.arrays["ids"]  # type: ignore[operator]
        return bool(np.isfinite(self.arrays["y"]).all())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.bin").write_bytes(b"weights")
    return tmp_path / "model.xml"


@pytest.mark.parametrize(
    ("factor", "passes"), [(1.0, True), (1.01, True), (2.0, False), (float("nan"), False), (float("inf"), False)]
)
def test_it_passes_what_is_near_f32(factor: float, passes: bool, model: Path, tmp_path: Path) -> None:
    test = SelfTest("1", tmp_path / "cache")
    assert test.passes(model, FakeForward(factor), FakeForward) is passes


def test_it_runs_once_for_the_same_model(model: Path, tmp_path: Path) -> None:
    forward = FakeForward()
    for _ in range(2):
        assert SelfTest("1", tmp_path / "cache").passes(model, forward, FakeForward)
    assert forward.runs == 1


def test_a_failure_is_remembered_too(model: Path, tmp_path: Path) -> None:
    assert not SelfTest("1", tmp_path / "cache").passes(model, FakeForward(3.0), FakeForward)
    assert not SelfTest("1", tmp_path / "cache").passes(model, FakeForward(3.0), FakeForward)


@pytest.mark.parametrize("change", ["version", "weights", "precision", "damaged memory"])
def test_it_runs_again_when_something_has_changed(change: str, model: Path, tmp_path: Path) -> None:
    forward = FakeForward()
    SelfTest("1", tmp_path / "cache").passes(model, forward, FakeForward)
    if change == "weights":
        os.utime(model.with_suffix(".bin"), (1, 1))
    if change == "precision":
        forward.precision = "f16"
    if change == "damaged memory":
        for file in (tmp_path / "cache").rglob("*.json"):
            file.write_text("{")
    SelfTest("2" if change == "version" else "1", tmp_path / "cache").passes(model, forward, FakeForward)
    assert forward.runs == 2


def test_it_does_without_a_cache_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert SelfTest("1", tmp_path / "cache").passes(model, FakeForward(), FakeForward)


def test_difference_is_relative_and_the_largest_of_all_outputs() -> None:
    reference: Arrays = {"a": np.full(4, 100.0), "b": np.full(4, 0.1)}
    outputs: Arrays = {"a": np.full(4, 101.0), "b": np.full(4, 0.102)}
    assert difference(outputs, reference) == pytest.approx(0.02)
    assert difference(reference, reference) == 0 < LIMIT
