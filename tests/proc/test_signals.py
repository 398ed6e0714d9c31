"""What signals do to a server, by what it was born to ignore. Real processes, stub stages."""

import signal

import pytest

from stages.core import wire
from tests.inherited import ignoring
from tests.server import STUBS, Server, run, serving

SLOW = wire.Submit(id="slow", prompt="[slow]", steps=8)  # a tenth of a second a step


def signalled(server: Server, *numbers: int) -> bool:
    """Send signals once the prompt is in work; whether it was finished all the same."""
    left = [*numbers]

    def send(message: wire.HubMessage) -> None:
        if isinstance(message, wire.Progress) and message.stage == "unet":
            while left:
                server.process.send_signal(left.pop(0))

    with server.client() as client:
        return len(run(client, [SLOW], send).images) == 1


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGHUP], [signal.SIGHUP, signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP], [signal.SIGHUP, signal.SIGTERM]],
)
def test_a_hangup_finishes_what_is_in_work(numbers: list[int]) -> None:
    with serving(*STUBS) as server:
        assert signalled(server, *numbers)
        assert server.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_server_that_was_started_to_ignore_a_signal_serves_on(number: int) -> None:
    with serving(*STUBS, ignored=[number]) as server:
        assert signalled(server, number)
        with server.client() as client:
            assert client.status().state == "serving"
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def test_the_tests_themselves_keep_what_they_had() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ignoring(signal.SIGINT):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before
