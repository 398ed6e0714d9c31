import os
import select
import signal

import pytest

from orchestrator.hub.signals import caught_signals
from tests.inherited import ignoring

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_is_read_by_the_loop_and_wakes_its_poll(number: int) -> None:
    with ignoring(), caught_signals() as inbox:
        assert inbox.take() == []
        os.kill(os.getpid(), number)
        assert select.select([inbox], [], [], 20.0)[0]
        assert inbox.take() == [number]
        assert inbox.take() == []


@pytest.mark.parametrize("number", HANDLED)
def test_what_was_there_before_is_there_again(number: int) -> None:
    before = signal.getsignal(number)
    with caught_signals():
        pass
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_is_sent_to_a_whole_terminal_stays_ignored_where_it_was(number: int) -> None:
    with ignoring(number), caught_signals() as inbox:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert inbox.take() == [signal.SIGTERM]


def test_sigterm_is_meant_for_us_whatever_was_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with caught_signals() as inbox:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inbox.take() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        ([signal.SIGHUP, signal.SIGHUP], [signal.SIGHUP]),
        ([signal.SIGTERM, signal.SIGHUP], [signal.SIGTERM]),
        ([signal.SIGHUP, signal.SIGTERM], [signal.SIGTERM]),
        ([signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]),
    ],
)
def test_a_hangup_asks_for_an_end_but_never_for_a_quicker_one(sent: list[int], counted: list[int]) -> None:
    with ignoring(), caught_signals() as inbox:
        for number in sent:
            os.kill(os.getpid(), number)
        assert inbox.take() == counted
        os.kill(os.getpid(), signal.SIGHUP)
        assert inbox.take() == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert inbox.take() == [signal.SIGTERM]
