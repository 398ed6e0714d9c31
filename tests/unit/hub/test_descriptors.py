import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from orchestrator.hub.descriptors import Reserve, in_use, raise_limit


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised_to_the_hard_one(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    assert raise_limit() == limits[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


@pytest.fixture
def exhausted(limits: tuple[int, int]) -> Iterator[list[int]]:
    """No descriptor is left, once this has been extended by `exhaust`; what it holds is closed at the end."""
    held: list[int] = []
    yield held
    for descriptor in held:
        os.close(descriptor)


def exhaust(held: list[int], limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use() + 64, limits[1]))
    with suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))


def test_what_is_held_in_reserve_is_there_when_nothing_else_is(limits: tuple[int, int], exhausted: list[int]) -> None:
    reserve = Reserve(8)
    exhaust(exhausted, limits)
    with reserve.lent():
        assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
    with pytest.raises(OSError, match="Too many open files"):
        os.open(os.devnull, os.O_RDONLY)
    reserve.close()


def test_a_reserve_that_cannot_be_had_is_taken_later(limits: tuple[int, int], exhausted: list[int]) -> None:
    exhaust(exhausted, limits)
    reserve = Reserve(6)
    assert not reserve._held
    os.close(exhausted.pop())
    with reserve.lent():
        pass
    assert len(reserve._held) == 1
    reserve.close()
