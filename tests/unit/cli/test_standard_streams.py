"""The command as a process whose standard descriptors are closed, full, or no file of prompts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

import pytest

from tests.unit.fake_hub import FakeHub

DEADLINE_S = 30.0

LOOK = """
import os, sys
from orchestrator import standard_streams
standard_streams.prepare()
here = {number: os.readlink(f"/proc/self/fd/{number}") for number in range(3)}
opened = os.open("/dev/zero", os.O_RDONLY)
child = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "test -e /dev/fd/0 && test -e /dev/fd/1 && test -e /dev/fd/2")
print("said")
print("complained", file=sys.stderr)
sys.stdin.read()
open(sys.argv[1], "w").write(repr((here, opened > 2, child, sorted(standard_streams.closed))))
"""

SUBSETS = [*chain.from_iterable(combinations(range(3), size) for size in range(4))]


def without(descriptors: tuple[int, ...], *command: str) -> list[str]:
    """A command line for the shell, some descriptors closed."""
    closing = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in descriptors)
    return ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, *command]


@pytest.mark.parametrize("closed", SUBSETS)
def test_what_is_closed_is_opened_on_nothing_before_all_else(closed: tuple[int, ...], tmp_path: Path) -> None:
    command = without(closed, "-c", LOOK, str(tmp_path / "found"))
    ended = subprocess.run(command, input=b"", capture_output=True, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        b"" if 1 in closed else b"said\n",
        b"" if 2 in closed else b"complained\n",
    )
    found, above, child, told = eval((tmp_path / "found").read_text())
    assert [number for number, path in found.items() if path == "/dev/null"] == list(closed)
    assert (above, child, told) == (True, 0, list(closed))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        monkeypatch.setenv("TRIPTYCH_CONNECT", hub.address)
        yield hub


def triptych(*words: str, closed: tuple[int, ...] = (), to: str = "") -> tuple[int, str, str]:
    """Run the command; exit status, and what it wrote."""
    command = without(closed, "-m", "orchestrator", *words)
    with open(to or os.devnull, "wb") as elsewhere:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=elsewhere if to else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=False,
        )
    return ended.returncode, (ended.stdout or b"").decode(), ended.stderr.decode()


@pytest.mark.parametrize("words", [("status",), ("generate", "a cat", "-o", "{out}")])
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_commands_do_their_work_without_them(
    words: tuple[str, ...], closed: tuple[int, ...], hub: FakeHub, tmp_path: Path
) -> None:
    status, out, err = triptych(*(word.format(out=tmp_path) for word in words), closed=closed)
    assert (status, err) == (0, "")
    assert bool(out) == (1 not in closed)


@pytest.mark.parametrize(
    "words",
    [("--help",), ("status",), ("status", "--json"), ("generate", "a cat", "-o", "{out}", "--json"), ("status", "-h")],
)
def test_output_that_cannot_be_written_is_one_line(words: tuple[str, ...], hub: FakeHub, tmp_path: Path) -> None:
    status, _, err = triptych(*(word.format(out=tmp_path) for word in words), to="/dev/full")
    line = "triptych: error: cannot write to standard output: No space left on device; send it elsewhere\n"
    assert (status, err) == (1, line)


def test_prompts_from_a_standard_input_that_is_closed_are_none(hub: FakeHub, tmp_path: Path) -> None:
    status, _, err = triptych("stream", "-o", str(tmp_path), closed=(0,))
    assert (status, err) == (
        2,
        "triptych: error: standard input is closed; name a file of prompts, or pipe them in\n",
    )
    assert triptych("stream", "-o", str(tmp_path)) == (0, "", "")  # that is empty
