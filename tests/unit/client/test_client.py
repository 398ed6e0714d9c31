"""The client against a server that answers as told."""

from collections.abc import Iterator

import pytest

from orchestrator.client import Client
from stages.core import wire
from stages.core.errors import Cancelled, Conflict, NoAnswer, StageLost
from tests.unit.fake_hub import DEADLINE_S, Answer, FakeHub, failing, painted
from tests.unit.statuses import status


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def client(hub: FakeHub) -> Iterator[Client]:
    with Client(hub.address, DEADLINE_S) as client:
        yield client


def prompt(id: str, **more: object) -> wire.Submit:
    return wire.Submit(id=id, prompt=f"prompt {id}", **more)  # type: ignore[arg-type]


def nothing(message: wire.ClientMessage) -> Iterator[Answer]:
    return iter(())


def stubborn(message: wire.ClientMessage) -> Iterator[Answer]:
    """Accepts, and only ends what is cancelled."""
    if isinstance(message, wire.Submit):
        yield wire.Accepted(id=message.id, position=0, eta_s=None)
    elif isinstance(message, wire.Cancel):
        yield wire.Failed(id=message.id, code="cancelled", message="by the client", retryable=False)
    else:
        yield from painted(message)


def test_a_prompt_is_its_events(client: Client) -> None:
    found = [(type(message), payload) for message, payload in client.submit(prompt("1", n=2))]
    assert found == [
        (wire.Accepted, None),
        (wire.Progress, None),
        (wire.Image, b"prompt 1 0"),
        (wire.Image, b"prompt 1 1"),
        (wire.Done, None),
    ]


def test_a_prompt_is_sent_at_the_call(hub: FakeHub, client: Client) -> None:
    client.submit(prompt("1"))
    assert hub.wait_for(lambda: len(hub.submits()) == 1)


def test_streams_can_be_read_in_any_order_and_side_by_side(client: Client) -> None:
    one, two, three = (client.submit(prompt(id)) for id in "123")
    assert [payload for _, payload in three if payload] == [b"prompt 3 0"]
    side_by_side = list(zip(one, two, strict=True))
    assert all((a[0].id, b[0].id) == ("1", "2") for a, b in side_by_side)  # type: ignore[union-attr]
    assert isinstance(side_by_side[-1][0][0], wire.Done)


def test_a_failure_is_raised_and_its_neighbours_go_on(hub: FakeHub, client: Client) -> None:
    hub.answers = failing("stage_lost", "prompt 1")
    one, two = client.submit(prompt("1")), client.submit(prompt("2"))
    with pytest.raises(StageLost, match="the reason"):
        list(one)
    assert list(one) == []
    assert len(list(two)) == 4


def test_a_stream_that_is_closed_before_its_end_cancels_its_prompt(hub: FakeHub, client: Client) -> None:
    hub.answers = stubborn
    with client.submit(prompt("1")) as events:
        next(events)
    assert hub.wait_for(lambda: wire.Cancel(id="1") in hub.received)
    assert list(events) == []
    hub.answers = painted
    assert len(list(client.submit(prompt("1")))) == 4, "the id may be used again"


def test_a_stream_that_is_closed_twice_cancels_its_prompt_once(hub: FakeHub, client: Client) -> None:
    hub.answers = stubborn
    events = client.submit(prompt("1"))
    next(events)
    events.close()
    events.close()
    client.status()
    assert hub.received.count(wire.Cancel(id="1")) == 1


def test_a_stream_that_has_ended_cancels_nothing(hub: FakeHub, client: Client) -> None:
    with client.submit(prompt("1")) as events:
        assert len(list(events)) == 4
    client.status()
    assert wire.Cancel(id="1") not in hub.received


def test_a_prompt_can_be_cancelled_by_its_id(hub: FakeHub, client: Client) -> None:
    hub.answers = stubborn
    events = client.submit(prompt("1"))
    client.cancel("1")
    with pytest.raises(Cancelled):
        list(events)


def test_an_id_is_used_once_at_a_time(client: Client) -> None:
    client.submit(prompt("1"))
    with pytest.raises(Conflict, match="choose another"):
        client.submit(prompt("1"))
    with pytest.raises(Conflict):
        client.send(prompt("1"))


def test_what_was_sent_without_a_stream_is_received_beside_streams(client: Client) -> None:
    client.send(prompt("1"))
    assert len(list(client.submit(prompt("2")))) == 4
    client.status()
    found = [client.receive(DEADLINE_S) for _ in range(4)]
    assert all(event is not None and getattr(event[0], "id", None) == "1" for event in found)
    assert client.receive(0.0) is None


def test_what_a_newer_server_adds_is_ignored(hub: FakeHub, client: Client) -> None:
    def newer(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.Submit):
            yield b'{"type": "accepted", "id": "1", "position": 0, "eta_s": null, "of_tomorrow": {"a": [1]}}'
            yield b'{"type": "of_tomorrow", "id": "1"}'
            yield b'{"type": "progress", "id": "1", "stage": "of_tomorrow", "step": 1, "steps": 2}'
            yield b'{"type": "done", "id": "1", "of_tomorrow": null}'
        else:
            yield wire.encode(status()).replace(b'"model"', b'"of_tomorrow": 3, "model"')

    hub.answers = newer
    assert [type(message) for message, _ in client.submit(prompt("1"))] == [wire.Accepted, wire.Done]
    assert client.status() == status()


def test_the_status_is_the_answer_to_the_question_and_no_older_one(hub: FakeHub, client: Client) -> None:
    models = iter("abc")

    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.StatusRequest):
            yield status(model=next(models))

    hub.answers = answers
    while not client.connected:
        client.receive(0.1)  # asks as soon as it can
    assert hub.wait_for(lambda: len(hub.received) == 1)
    assert client.status().model == "b"


def test_a_server_that_is_not_silent_is_not_asked(hub: FakeHub) -> None:
    with Client(hub.address, DEADLINE_S, ask_s=60.0) as client:
        client.send(prompt("1"))
        assert client.receive(DEADLINE_S) is not None
        for _ in range(20):
            client.receive(0.001)
        assert hub.wait_for(lambda: len(hub.received) >= 1)
        assert [type(message) for message in hub.received] == [wire.Submit]


def test_a_silent_server_is_asked_and_a_dead_one_told_from_a_busy_one(hub: FakeHub) -> None:
    hub.answers = nothing
    with Client(hub.address, DEADLINE_S, silence_s=0.3, ask_s=0.01) as client:
        events = client.submit(prompt("1"))
        with pytest.raises(NoAnswer, match="silent for 0 s"):
            list(events)
    questions = [message for message in hub.received if isinstance(message, wire.StatusRequest)]
    assert len(questions) >= 1


def test_a_busy_server_is_waited_for(hub: FakeHub) -> None:
    asked: list[wire.StatusRequest] = []

    def slowly(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.StatusRequest):
            asked.append(message)
            yield status()
            if len(asked) == 3:
                yield from painted(prompt("1"))

    hub.answers = slowly
    with Client(hub.address, DEADLINE_S, silence_s=0.6, ask_s=0.3) as client:
        assert len(list(client.submit(prompt("1")))) == 4
        assert client.last_status == status()


def test_a_restart_is_noticed_whoever_is_read(hub: FakeHub, client: Client) -> None:
    hub.answers = stubborn
    one = client.submit(prompt("1"))
    client.status()
    hub.answers = lambda message: iter([status(hub_pid=77)])
    client.status()
    assert isinstance(next(one)[0], wire.Accepted)
    with pytest.raises(NoAnswer, match="was restarted and knows nothing of these prompts"):
        next(one)
    hub.answers = painted
    assert len(list(client.submit(prompt("1")))) == 4, "the new server can be used"


def test_a_lost_connection_is_noticed_at_once_and_the_next_server_used() -> None:
    with FakeHub() as first:
        first.answers = stubborn
        client = Client(first.address, DEADLINE_S)
        events = client.submit(prompt("1"))
        next(events)
    with client, pytest.raises(NoAnswer, match=r"connection to .* was lost"):
        next(events)


def test_a_server_that_is_still_starting_is_waited_for(hub: FakeHub, client: Client) -> None:
    states = iter(["starting", "starting", "serving"])
    hub.answers = lambda message: iter([status(state=next(states))])
    ticks: list[str | None] = []
    found = client.wait_serving(lambda known: ticks.append(known and known.state))
    assert found.state == "serving"
    assert {None, "starting"} <= set(ticks)


def test_a_server_that_comes_late_is_reached() -> None:
    with FakeHub() as gone:
        address = gone.address
    with Client(address, DEADLINE_S) as client:
        assert client.receive(0.0) is None
        assert not client.connected
        with FakeHub(address):
            assert len(list(client.submit(prompt("1")))) == 4


def test_nobody_there_is_told_after_the_time_that_was_given() -> None:
    with Client("ipc://@nobody-is-here", connect_s=0.05) as client:
        for ask in (client.status, lambda: client.submit(prompt("1")), lambda: client.wait_serving()):
            with pytest.raises(NoAnswer, match="nothing listens at ipc://@nobody-is-here"):
                ask()
