"""Owners whose clients die and come back. Real processes, stub stages."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator.client import Client
from stages.core import wire
from tests.server import DEADLINE_S, STUBS, Outcome, Server, serving

OWNER = "2b9c7f30d1"

DIES = """
import os, signal, sys
from orchestrator.client import Client
from stages.core import wire
client = Client(sys.argv[1], connect_s=60)
for id in "abc":
    client.send(wire.Submit(id=id, prompt=f"[slow] {id}", seed=1, steps=12, n=2, owner=sys.argv[2]))
accepted = 0
while accepted < 3:
    event = client.receive(60)
    accepted += isinstance(event[0], wire.Accepted)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*STUBS) as running:
        yield running


def everything(client: Client, *ids: str) -> Outcome:
    """All that comes until each of these prompts has ended."""
    found, until = Outcome(), time.monotonic() + DEADLINE_S
    while set(ids) - set(found.terminal):
        assert time.monotonic() < until, f"no end of {set(ids) - set(found.terminal)}"
        event = client.receive(1.0)
        if event is not None and not isinstance(event[0], wire.Attached):
            found.take(event)
    return found


def submit(id: str, **fields: object) -> wire.Submit:
    return wire.Submit(id=id, prompt=f"[slow] {id}", seed=1, steps=12, n=2, **fields)  # type: ignore[arg-type]


def test_a_client_that_was_killed_finds_its_prompts_again(server: Server) -> None:
    dead = subprocess.run([sys.executable, "-c", DIES, server.address, OWNER], timeout=DEADLINE_S, check=False)
    assert dead.returncode == -signal.SIGKILL
    with server.client() as client:
        client.send(wire.Attach(owner=OWNER))
        event = client.receive(DEADLINE_S)
        assert event is not None
        assert isinstance(event[0], wire.Attached)
        assert sorted(event[0].in_work + event[0].ended) == ["a", "b", "c"]
        found = everything(client, "a", "b", "c")
        assert sorted(found.images) == [(id, index) for id in "abc" for index in range(2)]
        assert all(len(ends) == 1 and isinstance(ends[0], wire.Done) for ends in found.terminal.values())
        # The same prompt of no owner is the same picture.
        client.send(submit("a"))
        again = everything(client, "a")
    assert [again.images["a", index] for index in range(2)] == [found.images["a", index] for index in range(2)]


def test_two_connections_of_one_owner_get_the_same_and_a_third_later(server: Server) -> None:
    owner = "two lines"
    with server.client() as one, server.client() as two:
        one.send(submit("x", owner=owner))
        assert isinstance(next_of(one)[0], wire.Accepted)
        two.send(submit("x", owner=owner))  # asked again, elsewhere: joined
        found = [everything(client, "x") for client in (one, two)]
        replayed = one.status().replayed
    with server.client() as three:
        three.send(wire.Attach(owner=owner, id="x"))
        found.append(everything(three, "x"))
        assert three.status().replayed == replayed
    assert found[0].images == found[1].images == found[2].images
    assert len(found[0].images) == 2


def next_of(client: Client) -> tuple[wire.HubMessage, bytes | None]:
    event = client.receive(DEADLINE_S)
    assert event is not None
    return event


def test_prompts_without_an_owner_still_go_with_their_connection(server: Server) -> None:
    client = server.client()
    client.send(submit("gone"))
    assert isinstance(next_of(client)[0], wire.Accepted)
    client.close()
    with server.client() as other:
        until = time.monotonic() + DEADLINE_S
        while (status := other.status()).arena.free < status.arena.slots:
            assert time.monotonic() < until
            os.sched_yield()
        other.send(wire.Cancel(id="gone"))
        answer = next_of(other)[0]
    assert isinstance(answer, wire.Failed)
    assert answer.code == "not_found"


def test_a_quote_is_answered_and_takes_nothing_in(server: Server) -> None:
    with server.client() as client:
        client.send(submit("first"))
        everything(client, "first")
        client.send(wire.Quote(id="q", prompt="a cat", steps=5))
        quoted = next_of(client)[0]
        assert isinstance(quoted, wire.Quoted)
        assert quoted.feasible
        assert quoted.seconds is not None
        assert 0 < quoted.seconds <= (quoted.eta_s or 0)
        assert client.status().queue.waiting == 0
