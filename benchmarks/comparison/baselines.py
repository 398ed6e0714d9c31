"""The systems that take part, and which of them are loaded at the same time."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psutil

from benchmarks.comparison.results import Task
from benchmarks.comparison.systems import PEERS, Peer, System, Workers
from benchmarks.comparison.triptych import Triptych
from benchmarks.comparison.work import Work
from stages.core import cores

OURS = ("triptych", "triptych-tuned")
NAMES = (*(peer.name for peer in PEERS), *OURS)

PER_WEIGHT = 2.6
PER_PROCESS = 0.4e9
"""Memory of a process, to tell how many fit: PER_WEIGHT times the weights on disk, and PER_PROCESS bytes."""


def peers(
    task: Task, work: Work, only: Collection[str], without: Collection[str], say: Callable[[str], None]
) -> list[Peer]:
    """The peers that can do the task, of those wanted; a line says why another one cannot."""
    wanted = [peer for peer in PEERS if peer.name not in without and (not only or peer.name in only)]
    reasons = {peer.name: _obstacle(peer, task, work) for peer in wanted}
    for name, reason in reasons.items():
        if reason:
            say(f"  {name} left out: {reason}")
    return [peer for peer in wanted if not reasons[peer.name]]


def _obstacle(peer: Peer, task: Task, work: Work) -> str:
    """Why a peer cannot take part, and what would help; empty if it can."""
    if install := peer.missing():
        return f"to have it: {install}"
    if peer.processes > 1 and task.alone:
        return "one prompt would have a part of the cores only"
    if peer.processes > len(cores.allowed()):
        return "there is no core for each of its processes"
    if peer.needs_torch and (work.torch is None or not Path(work.torch).is_dir()):
        return f"it needs the weights for torch: `python -m benchmarks.models {task.model}`, or --torch FOLDER"
    return ""


def triptych_systems(task: Task, work: Work, overrides: Sequence[str], without: Collection[str]) -> list[System]:
    """Triptych as it comes and, if there are overrides, with those."""
    configurations = {OURS[0]: (), **({OURS[1]: tuple(overrides)} if overrides else {})}
    return [Triptych(name, work, task.images, keys) for name, keys in configurations.items() if name not in without]


def groups(ours: list[System], others: list[Peer], work: Work, say: Callable[[str], None]) -> list[list[System]]:
    """Systems that are loaded together: all; or, where memory does not suffice, Triptych with one peer at a time."""
    weights = sum(file.stat().st_size for file in Path(work.model).glob("*/openvino_model.bin"))
    processes = len(ours) + sum(peer.processes for peer in others)
    needed = processes * (PER_WEIGHT * weights + PER_PROCESS)
    available = psutil.virtual_memory().available
    if needed < 0.9 * available or len(others) < 2:
        return [[*ours, *(Workers(peer, work) for peer in others)]]
    say(
        f"  all together would need about {needed / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB are free: "
        "Triptych is loaded with one peer at a time"
    )
    return [[*ours, Workers(peer, work)] for peer in others]
