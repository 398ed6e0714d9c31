"""The client against a server that answers as told."""

from collections.abc import Iterator

import pytest

from orchestrator.client import Client
from stages.core import wire
from stages.core.errors import NoAnswer
from tests.unit.fake_hub import Answer, FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def test_a_tick_is_no_question(hub: FakeHub) -> None:
    with Client(hub.address) as client:
        events = client.events(tick_s=0.001, ask_s=60.0)
        assert [next(events) for _ in range(20)] == [None] * 20
    assert hub.received == []


def test_a_silent_server_is_asked_for_its_status(hub: FakeHub) -> None:
    with Client(hub.address) as client:
        for event in client.events(tick_s=0.001, ask_s=0.01):
            if event is not None:
                assert isinstance(event[0], wire.Status)
                assert client.last_status == event[0]
                break
    assert hub.wait_for(lambda: bool(hub.received))
    assert all(isinstance(message, wire.StatusRequest) for message in hub.received)


def test_a_dead_server_is_told_from_a_busy_one(hub: FakeHub) -> None:
    def silent(message: wire.ClientMessage) -> Iterator[Answer]:
        return iter(())

    hub.answers = silent
    with Client(hub.address, silence_s=0.2) as client, pytest.raises(NoAnswer, match="silent for 0 s"):
        for _ in client.events(tick_s=0.01, ask_s=0.05):
            pass
    assert hub.wait_for(lambda: len(hub.received) >= 2)
