"""Memory of a tree of real processes."""

import os
import subprocess
import sys

from orchestrator.bench.memory import TreeMemory
from tests.server import eventually

HELD = 64 << 20
HOLDS = f"held = bytearray({HELD}); held[::4096] = b'x' * len(held[::4096]); input()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}])"


def test_what_grandchildren_take_is_seen_from_before_they_start() -> None:
    with TreeMemory(os.getpid(), descendants_only=True) as tree:
        eventually(lambda: tree.samples, "a sample")
        assert tree.peak_bytes is None
        process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE)
        eventually(lambda: (tree.peak_bytes or 0) > HELD, "the grandchild's memory")
        process.communicate(b"\n")
        eventually(lambda: tree.samples[-1].pss_bytes == 0, "its end")
    assert HELD < (tree.peak_bytes or 0) < 4 * HELD
    times = [sample.at for sample in tree.samples]
    assert times == sorted(times)


def test_the_root_counts_where_it_is_asked_for() -> None:
    with TreeMemory(os.getpid(), descendants_only=False) as tree:
        assert eventually(lambda: tree.peak_bytes, "its own memory") > 1 << 20


def test_a_process_that_has_gone_takes_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with TreeMemory(process.pid, descendants_only=False) as tree:
        eventually(lambda: tree.samples, "a sample")
    assert tree.peak_bytes is None
