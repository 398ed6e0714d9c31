"""What the comparison with peers does with real processes: memory of a tree, and Triptych as a system."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.comparison import memory
from benchmarks.comparison.memory import PeakMemory
from benchmarks.comparison.triptych import Triptych
from benchmarks.comparison.work import Work
from stages.core.errors import ConfigError
from stages.core.model import demo_folder
from tests.server import STUBS, eventually

MIB = 1 << 20

WORK = Work(
    model=str(demo_folder()),
    torch=None,
    width=128,
    height=128,
    steps=2,
    guidance_scale=4.0,
    negative_prompt="blurry",
    precision="f32",
)

HOLDS_MEMORY = """
import subprocess, sys
held = bytearray(b"x") * (64 << 20)
child = subprocess.Popen([sys.executable, "-c", "held = b'x' * (32 << 20); print('there', flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("there", flush=True)
input()
child.communicate(b"\\n")
"""


def test_the_peak_is_of_the_whole_tree_and_outlives_it() -> None:
    with PeakMemory() as found:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDS_MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"there\n"
            assert set(memory.descendants()) >= {holder.pid}
            eventually(lambda: found.peak().pss > 96 * MIB, "both processes are seen")
            holder.communicate(b"\n")
        assert holder.pid not in memory.descendants()
    assert 96 * MIB < found.peak().pss <= found.peak().hwm


def test_a_process_that_is_gone_has_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert (memory.pss(child.pid), memory.high_water_mark(child.pid), memory.cpu_seconds([child.pid])) == (0, 0, 0.0)


def test_triptych_is_started_asked_and_stopped(tmp_path: Path) -> None:
    before = memory.descendants().keys()
    system = Triptych("triptych", WORK, 6, STUBS)
    try:
        system.load()
        assert len(memory.descendants().keys() - before) >= 4
        system.draw(0, 6)
        system.save(6, tmp_path / "6.png")
    finally:
        system.close()
    with Image.open(tmp_path / "6.png") as picture:
        assert picture.format == "PNG"
    assert memory.descendants().keys() == before


def test_a_key_that_triptych_does_not_know_ends_it_with_its_own_words() -> None:
    system = Triptych("triptych-tuned", WORK, 1, ("stage.unet.steams=2",))
    with pytest.raises(ConfigError, match="steams"):
        system.load()
    system.close()
