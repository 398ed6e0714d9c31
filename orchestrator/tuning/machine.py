"""The cores that a tuner may deal out: what this process may use, by memory node, one of each pair of siblings."""

import math
from pathlib import Path

import msgspec

from orchestrator.plan import Machine
from stages.core import cores


class Topology(msgspec.Struct, frozen=True):
    """Cores in the order in which they are dealt out: node by node."""

    nodes: tuple[tuple[int, ...], ...]
    machine: Machine

    @classmethod
    def here(cls, root: Path = Path("/sys/devices/system")) -> "Topology":
        """The topology of the machine this process runs on."""
        return read(Machine.here(), root)

    @classmethod
    def what_if(cls, core_count: int, numa: int, memory: int = 1 << 50) -> "Topology":
        """The topology of a machine that is not here: `numa` nodes of as many cores each, numbered node by node."""
        part = core_count // numa
        nodes = tuple(tuple(range(number * part, (number + 1) * part)) for number in range(numa))
        return cls(nodes, Machine(frozenset(range(part * numa)), math.inf, memory))

    @property
    def cores(self) -> tuple[int, ...]:
        """Cores of all nodes, in the order in which they are dealt out."""
        return tuple(core for node in self.nodes for core in node)

    @property
    def granted(self) -> int:
        """Cores' worth of CPU time: as many threads can run at once."""
        return max(1, math.floor(min(len(self.cores), self.machine.quota)))


def read(machine: Machine, root: Path) -> Topology:
    """The nodes that `root` (as /sys/devices/system) tells of, as far as their cores may be used.

    Of hardware threads that share a core only the first is dealt out: they share the units that forwards wait for.
    """
    first = {core for core in machine.cores if core == min(_siblings(core, root) & machine.cores, default=core)}
    nodes = []
    for listed in sorted(root.glob("node/node[0-9]*/cpulist"), key=lambda path: int(path.parent.name[4:])):
        if mine := tuple(sorted(cores.parse(listed.read_text().strip()) & first)):
            nodes.append(mine)
    left = tuple(sorted(first - {core for node in nodes for core in node}))
    return Topology((*nodes, left) if left else tuple(nodes), machine)


def _siblings(core: int, root: Path) -> frozenset[int]:
    try:
        return cores.parse((root / f"cpu/cpu{core}/topology/thread_siblings_list").read_text().strip())
    except OSError:
        return frozenset({core})
