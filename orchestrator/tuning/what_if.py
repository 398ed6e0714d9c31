"""`triptych plan` without its terminal: layouts for a machine that is not here, compared by simulation. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from orchestrator.tuning import space
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.predictor import Predictor, best_predicted
from orchestrator.tuning.profile import Profile
from orchestrator.tuning.score import Score
from orchestrator.tuning.space import Candidate
from stages.core import cores
from stages.core.config import Config
from stages.core.errors import ConfigError

ASSUMPTIONS = (
    "forwards follow the law that was fitted to what was measured, also far beyond it",
    "a memory node has --bandwidth times as much bandwidth for each of its cores as the machine that was measured",
    "the weights of a process lie on one node, so a process that spans several has the bandwidth of one",
    "cores are as fast as those that were measured, however many of them are at work",
    "cells get equal loads, each its own hub; the hub costs what it costs on the embedded model",
)
"""Assumptions of every outcome, told with it."""

_MOST_SIMULATED = 5
"""Candidates of one layout that are simulated, those with the highest bounds."""


class LargerMachine(NamedTuple):
    """A machine that is not here."""

    cores: int
    numa: int
    bandwidth: float
    """Memory bandwidth of a core's part of a node, as a factor of that of the machine measured."""


class LayoutRow(msgspec.Struct, frozen=True):
    """The best candidate of one layout."""

    layout: str
    cells: int
    """Pipelines side by side, each with its own hub."""
    candidate: Candidate
    score: Score
    """Score of all cells together."""
    memory_bytes: int
    keeps_cap: bool


class _Layout(NamedTuple):
    name: str
    cells: int
    cores_a_cell: int
    wanted: Callable[[Candidate], bool]


def compare(
    machine: LargerMachine,
    profile: Profile,
    steps: int,
    cap_s: float,
    done: Callable[[str], None] = lambda name: None,
) -> list[LayoutRow]:
    """One wide pipeline, disjoint stages, and narrow cells of several widths; the fastest that keeps the cap first.

    Raises ConfigError for a machine that cannot be.
    """
    if machine.cores % machine.numa:
        raise ConfigError(f"{machine.cores} cores cannot be divided into {machine.numa} equal nodes")
    rows = []
    for layout in _layouts(machine):
        done(layout.name)
        row = _best(layout, machine, profile, steps, cap_s)
        if row is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: (not row.keeps_cap, -row.score.images_per_s))


def _layouts(machine: LargerMachine) -> Iterator[_Layout]:
    node = machine.cores // machine.numa
    yield _Layout("one wide pipeline, cores shared", 1, machine.cores, _shared)
    if machine.cores > 1:
        yield _Layout("one pipeline, disjoint stages", 1, machine.cores, lambda candidate: not _shared(candidate))
    width = node
    while width >= 1:
        if machine.cores // width > 1 and node % width == 0:
            name = f"{machine.cores // width} cells of {width} core{'' if width == 1 else 's'}"
            yield _Layout(name, machine.cores // width, width, lambda candidate: True)
        width //= 2


def _shared(candidate: Candidate) -> bool:
    return candidate.text.cores == candidate.unet.cores == candidate.vae.cores


def _best(
    layout: _Layout,
    machine: LargerMachine,
    profile: Profile,
    steps: int,
    cap_s: float,
) -> LayoutRow | None:
    node = machine.cores // machine.numa
    numa = max(1, layout.cores_a_cell // node)
    topology = Topology.what_if(layout.cores_a_cell, numa)
    # Cells on one node share its bandwidth evenly, and so do the streams of one cell what it has.
    here = len(cores.parse(profile.cores))
    bandwidth = machine.bandwidth * min(layout.cores_a_cell, node) / here
    curves = Curves(profile.points, bandwidth, by_law=True)
    predictor = Predictor(Config(), profile.card, topology, curves, profile.conditions, steps)
    chosen = [candidate for candidate in space.candidates(topology, profile.card) if layout.wanted(candidate)]
    scores = predictor.scores(predictor.by_bound(chosen, _MOST_SIMULATED))
    best = best_predicted(scores, cap_s)
    keeps = best is not None
    if best is None:
        best = min(scores, key=lambda candidate: scores[candidate].p99_s, default=None)
    if best is None:
        return None
    one = scores[best]
    every = msgspec.structs.replace(one, images_per_s=one.images_per_s * layout.cells)
    return LayoutRow(layout.name, layout.cells, best, every, predictor.memory_bytes(best) * layout.cells, keeps)
