"""Weighing costs what it may cost, and no more."""

import os

from orchestrator.hub.process_memory import Memory, ProcessMemory


class Counted:
    """A process that gets heavier at every look, and takes a tenth of a second to look at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def read(self, pid: int) -> Memory:
        self.now += 0.1
        self.looks += 1
        return Memory(self.looks, pid)


def test_a_process_is_weighed_again_only_after_fifty_times_what_it_cost() -> None:
    counted = Counted()
    scale = ProcessMemory(counted.read, lambda: counted.now)
    assert scale.sample(7) == scale.sample(7) == Memory(1, 7)
    counted.now += 4.9
    assert scale.sample(7) == Memory(1, 7)
    counted.now += 0.2
    assert scale.sample(7) == Memory(2, 7)


def test_each_process_has_a_weight_of_its_own() -> None:
    counted = Counted()
    scale = ProcessMemory(counted.read, lambda: counted.now)
    assert [scale.sample(pid).pss for pid in (7, 8, 7)] == [7, 8, 7]
    assert counted.looks == 2


def test_it_weighs_real_processes_and_none_that_are_gone() -> None:
    mine = ProcessMemory().sample(os.getpid())
    assert mine.rss >= mine.pss > 1 << 20
    assert ProcessMemory().sample(1 << 30) == Memory(0, 0)
