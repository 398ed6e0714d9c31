import math
from pathlib import Path

import pytest

from orchestrator.plan import Machine
from orchestrator.tuning.machine import Topology, read


def system(root: Path, nodes: dict[str, str], siblings: dict[int, str] | None = None) -> Path:
    """A folder like /sys/devices/system."""
    for name, listed in nodes.items():
        (root / "node" / name).mkdir(parents=True)
        (root / "node" / name / "cpulist").write_text(f"{listed}\n")
    for core, listed in (siblings or {}).items():
        (root / f"cpu/cpu{core}/topology").mkdir(parents=True)
        (root / f"cpu/cpu{core}/topology/thread_siblings_list").write_text(f"{listed}\n")
    return root


def some(*cores: int, quota: float = math.inf) -> Machine:
    return Machine(frozenset(cores), quota, 1 << 34)


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ({"node0": "0-3", "node1": "4-7"}, ((0, 1, 2, 3), (4, 5, 6, 7))),
        ({"node0": "0,2,4,6", "node1": "1,3,5,7"}, ((0, 2, 4, 6), (1, 3, 5, 7))),
        ({"node2": "6-7", "node10": "0-5"}, ((6, 7), (0, 1, 2, 3, 4, 5))),
        ({}, ((0, 1, 2, 3, 4, 5, 6, 7),)),
    ],
)
def test_nodes_are_as_the_kernel_tells_them(tmp_path: Path, nodes: dict[str, str], found: object) -> None:
    assert read(some(*range(8)), system(tmp_path, nodes)).nodes == found


def test_a_cpuset_leaves_what_it_leaves(tmp_path: Path) -> None:
    root = system(tmp_path, {"node0": "0-3", "node1": "4-7", "node2": "8-11"})
    assert read(some(1, 2, 9), root).nodes == ((1, 2), (9,))


def test_of_siblings_the_first_is_dealt_out(tmp_path: Path) -> None:
    root = system(
        tmp_path, {"node0": "0-7"}, {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
    )
    assert read(some(*range(8)), root).cores == (0, 1, 2, 3)
    assert read(some(4, 5, 2), root).cores == (2, 4, 5)


def test_a_quota_grants_whole_cores_and_at_least_one() -> None:
    assert Topology(((0, 1, 2, 3),), some(0, 1, 2, 3, quota=2.7)).granted == 2
    assert Topology(((0, 1),), some(0, 1, quota=0.5)).granted == 1


def test_this_machine_has_cores() -> None:
    here = Topology.here()
    assert set(here.cores) <= here.machine.cores
    assert here.granted >= 1


def test_a_machine_on_paper_is_numbered_node_by_node() -> None:
    assert Topology.what_if(6, 2).nodes == ((0, 1, 2), (3, 4, 5))
