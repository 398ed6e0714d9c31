"""What a process that a test starts inherits, whatever the tests themselves were started with."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignoring(*ignored: int) -> Iterator[None]:
    """Processes started in the block ignore these of SIGINT and SIGHUP from birth, and obey the others.

    `nohup pytest`, or `pytest &` in a script, would otherwise hand down that they are ignored.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = [
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.default_int_handler) for number in numbers
    ]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
