import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import cores
from stages.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", set()), ("3", {3}), ("0-2", {0, 1, 2}), ("0-1,16", {0, 1, 16}), (" 5 , 1-1 ", {1, 5}), ("2,2-3", {2, 3})],
)
def test_a_cpu_list_is_read(text: str, expected: set[int]) -> None:
    assert cores.parse(text) == expected


@pytest.mark.parametrize(("numbers", "expected"), [([], ""), ([3], "3"), ([2, 0, 1, 2], "0-2"), ([16, 0, 1], "0-1,16")])
def test_a_cpu_list_is_written_as_short_as_it_can_be(numbers: list[int], expected: str) -> None:
    assert cores.render(numbers) == expected


@given(st.frozensets(st.integers(0, 65_535) | st.integers(0, 20)))
def test_reading_undoes_writing(numbers: frozenset[int]) -> None:
    assert cores.parse(cores.render(numbers)) == numbers


@pytest.mark.parametrize(
    "text", ["a", "0-", "-1", "0-1-2", "1.5", "0x1", "0 1", "3-1", "0-65536", "99999999999", "9" * 5000, "\u0663"]
)
def test_what_is_no_cpu_list_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        cores.parse(f"0,{text}")
    assert text[:900] in refused.value.message


@given(st.text("0123456789-, x", max_size=12))
def test_any_text_is_a_cpu_list_or_a_config_error(text: str) -> None:
    try:
        found = cores.parse(text)
    except ConfigError:
        return
    assert set(text) <= set("0123456789-, ")
    assert cores.parse(cores.render(found)) == found


PINNED = """
import os, threading
from stages.core import cores

first, last = min(cores.allowed()), max(cores.allowed())
cores.pin([first])
pinned, seen = threading.Event(), threading.Event()

def work():
    pinned.set()
    seen.wait()

threading.Thread(target=work).start()
pinned.wait()
print(cores.allowed() == {first}, cores.read_back(os.getpid()) == {first})
seen.set()

pinned, seen = threading.Event(), threading.Event()

def stray():
    os.sched_setaffinity(0, {last})
    pinned.set()
    seen.wait()

threading.Thread(target=stray).start()
pinned.wait()
print(cores.allowed() == {first}, cores.read_back(os.getpid()) == {first, last})
seen.set()
"""


def test_pinning_holds_for_every_thread_and_a_stray_one_is_seen(python: Callable[..., str]) -> None:
    assert python(PINNED) == "True True\nTrue True\n"


def test_what_is_allowed_is_what_the_kernel_reads_back() -> None:
    assert cores.allowed() == os.sched_getaffinity(0)
    assert cores.allowed() <= cores.read_back(os.getpid())


@pytest.mark.parametrize("absent", [[65_535], [65_534, 65_535], [], [-1], [1 << 40]])
def test_cores_that_the_machine_has_not_are_refused_by_name(absent: list[int]) -> None:
    before = cores.allowed()
    with pytest.raises(ConfigError, match=f"cores {cores.render(absent)}"):
        cores.pin(absent)
    assert cores.allowed() == before


def test_a_process_that_is_gone_has_no_cores() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(30)
    assert cores.read_back(ended.pid) == frozenset()


def test_threads_that_are_there_already_are_pinned_too(python: Callable[..., str]) -> None:
    """As numpy's BLAS has them from its import on."""
    program = """
import threading
from stages.core import cores
stop = threading.Event()
threading.Thread(target=stop.wait).start()
first = min(cores.allowed())
cores.pin([first])
import os
print(cores.read_back(os.getpid()) == {first})
stop.set()
"""
    assert python(program).strip() == "True"
