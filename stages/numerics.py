"""The numerics self-test: does a model compute here, in the precision chosen, what it computes in f32?

Low-precision kernels are chosen by what the CPU says it can do, and some CPUs, and some virtual ones, have been wrong
about that. One forward on a fixed input shows it. It costs a second compilation, in f32, so what it found is
remembered for this CPU, this OpenVINO and these weights, in the user's cache folder.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


class SelfTest:
    """Tests forwards, and remembers the outcome in `cache`."""

    def __init__(self, version: str, cache: Path | None = None) -> None:
        """`version` of the inference library; `cache` is the user's cache folder by default."""
        self._version = version
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._cache = Path(home) / "triptych" / "numerics" if cache is None else cache

    def passes(self, ir: Path, forward: Testable, precisely: Callable[[], Testable]) -> bool:
        """Whether `forward`, of the model at `ir`, is near enough to the same forward made by `precisely`."""
        remembered = self._cache / f"{self._key(ir, forward)}.json"
        try:
            found = float(json.loads(remembered.read_text())["difference"])
        except (OSError, ValueError, KeyError, TypeError):
            found = difference(_run(forward), _run(precisely()))
            self._remember(remembered, ir, forward, found)
        return found <= LIMIT

    def _key(self, ir: Path, forward: Testable) -> str:
        """What the outcome depends on."""
        weights = ir.with_suffix(".bin").stat()
        facts = (self._version, _cpu(), str(ir.resolve()), weights.st_size, weights.st_mtime_ns, forward.precision)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def _remember(self, path: Path, ir: Path, forward: Testable, found: float) -> None:
        """Write the outcome; a cache that cannot be written is done without."""
        facts = {"difference": found, "model": str(ir), "precision": forward.precision, "version": self._version}
        part = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(facts))
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()


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


def _cpu() -> str:
    """Model and instruction sets of the first core, as the kernel names them."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model name", "stepping", "microcode", "flags")))
