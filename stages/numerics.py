"""The numerics self-test: does a model compute here, in the precision chosen, what it computes in f32?

Low-precision kernels are chosen by what the CPU says it can do, and some CPUs, and some virtual ones, have been wrong
about that. One forward on a fixed input shows it. It costs a second compilation, in f32, so what it found is
remembered for this CPU, this OpenVINO and these weights, in the user's cache folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.core import figures

LIMIT = 0.1
"""Largest root-mean-square difference from f32, relative to f32's own: bf16 stays below 0.03 on the models tried."""

Arrays = dict[str, NDArray[np.generic]]


class Testable(Protocol):
    """The part of a forward that the test uses."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str

    def allocate(self, name: str) -> NDArray[np.generic]:
        """Bind a fresh array."""

    def infer(self) -> bool:
        """Run on what is bound; whether the outputs are finite."""


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one self-test."""

    difference: float | None
    """Relative difference from f32, see `difference`; None stands for infinity, which JSON has no word for."""
    model: str
    precision: str
    version: str


class SelfTest:
    """Tests forwards, and remembers the outcome in `cache`."""

    def __init__(self, version: str, cache: Path | None = None) -> None:
        """`version` of the inference library; `cache` is the user's cache folder by default."""
        self._version = version
        self._figures = figures.FigureStore("numerics", cache)

    def passes(self, ir: Path, forward: Testable, precisely: Callable[[], Testable]) -> bool:
        """Whether `forward`, of the model at `ir`, is near enough to the same forward made by `precisely`."""
        facts = (self._version, figures.cpu(), *figures.weights(ir), forward.precision)
        outcome = self._figures.read(facts, Outcome)
        if outcome is None:
            found = difference(_run(forward), _run(precisely()))
            outcome = Outcome(found if np.isfinite(found) else None, str(ir), forward.precision, self._version)
            self._figures.write(facts, outcome)
        return outcome.difference is not None and outcome.difference <= LIMIT


def difference(outputs: Arrays, reference: Arrays) -> float:
    """The largest relative root-mean-square difference of any output; infinite if one holds NaN or Inf."""
    found = 0.0
    for name, expected in reference.items():
        wide, seen = expected.astype(np.float64), outputs[name].astype(np.float64)
        if not np.isfinite(seen).all():
            return float("inf")
        scale = float(np.sqrt((wide**2).mean())) or 1.0
        found = max(found, float(np.sqrt(((seen - wide) ** 2).mean())) / scale)
    return found


def _run(forward: Testable) -> Arrays:
    """The outputs for a fixed input: normal noise, or counting up where integers are wanted (tokens, timesteps)."""
    noise = np.random.default_rng(0)
    for name in forward.inputs:
        array = forward.allocate(name)
        counted = np.arange(array.size).reshape(array.shape)
        array[...] = counted if array.dtype.kind == "i" else noise.standard_normal(array.shape)
    outputs = {name: forward.allocate(name) for name in forward.outputs}
    forward.infer()
    return outputs
