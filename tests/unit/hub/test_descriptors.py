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


def test_what_is_held_in_reserve_is_there_when_nothing_else_is(limits: tuple[int, int]) -> None:
    reserve = Reserve(8)
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        with suppress(OSError):
            while True:
                spare.append(os.open(os.devnull, os.O_RDONLY))
        with reserve.lent():
            assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
    finally:
        for descriptor in spare:
            os.close(descriptor)
        reserve.close()


def test_a_reserve_that_cannot_be_had_is_taken_later(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use() + 2, limits[1]))
    reserve = Reserve(6)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    few = in_use()
    with reserve.lent():
        pass
    assert in_use() > few
    reserve.close()
