"""Clients that go away, change their minds, or do not listen. Real processes, stub stages."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client import Client
from stages.core import wire
from stages.core.pipes import Run
from stages.core.tasks import Decode, EncodeText
from tests.proc.stubs import StubText, StubVae
from tests.server import STUBS, Server, eventually, run, serving

RELEASE_S = 5.0
"""One step (a tenth of a second) and a second is what is promised; the rest is for slow and busy machines."""


class SlowText(StubText):
    """Takes half a second over every prompt: long enough for its client to go."""

    def work(self, run: Run[EncodeText]) -> tuple[int, ...]:
        time.sleep(0.5)
        return super().work(run)


class SlowVae(StubVae):
    """Takes half a second over every picture: long enough to be cancelled in."""

    def work(self, run: Run[Decode]) -> tuple[int, ...]:
        time.sleep(0.5)
        return super().work(run)


def prompt(id: str, word: str = "", steps: int = 4, **more: object) -> wire.Submit:
    return wire.Submit(id=id, prompt=f"{word} {id}", seed=1, steps=steps, **more)  # type: ignore[arg-type]


def free_again(server: Server) -> bool:
    with server.client() as client:
        status = client.status()
    return status.arena.free == status.arena.slots and status.queue.waiting == 0


def idle(server: Server) -> bool:
    with server.client() as client:
        return all(stage.state == "idle" for stage in client.status().stages)


def await_accepted(client: Client, id: str) -> None:
    while True:
        event = client.receive(30.0)
        assert event is not None, f"{id} was never accepted"
        if isinstance(event[0], wire.Accepted) and event[0].id == id:
            return


def await_progress(client: Client, id: str, stage: wire.Kind, step: int) -> None:
    while True:
        event = client.receive(30.0)
        assert event is not None, f"{id} never came to step {step} in {stage}"
        match event[0]:
            case wire.Progress(id=heard, stage=where, step=done) if (heard, where) == (id, stage) and done >= step:
                return
            case wire.Failed() as failed:
                raise AssertionError(failed)


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with serving(*STUBS, "pipeline.share=timeslice") as running:
        yield running


@pytest.fixture(scope="module")
def turns() -> Iterator[Server]:
    with serving(*STUBS, "pipeline.share=turns") as running:
        yield running


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    here = "tests.proc.test_clients"
    with serving(*STUBS, f"stage.text.implementation={here}:SlowText", f"stage.vae.implementation={here}:SlowVae") as s:
        yield s


@pytest.mark.parametrize("share", ["plain", "turns"])
def test_a_client_that_closes_its_connection_loses_its_jobs_and_nobody_else_does(
    share: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(share)
    with server.client() as stays:
        stays.send(prompt("mine before", "[slow]"))
        goes = server.client()
        for number in range(24):
            goes.send(prompt(f"{number}", "[slow]", steps=100))
        await_progress(goes, "0", "unet", 1)
        stays.send(prompt("mine after", "[slow]"))
        goes.close()
        began = time.monotonic()
        ends: list[str] = []
        while len(ends) < 2:
            event = stays.receive(30.0)
            assert event is not None, "the other client's prompts were lost"
            if isinstance(event[0], wire.Done | wire.Failed):
                assert isinstance(event[0], wire.Done)
                ends.append(event[0].id)
        eventually(lambda: free_again(server), "slots free", RELEASE_S)
        assert time.monotonic() - began < RELEASE_S + 2 * 4 * 0.1
        # Nobody works on for the dead either: a job of 100 steps would take ten seconds.
        eventually(lambda: idle(server), "stages idle", RELEASE_S)
        assert len(run(stays, [prompt("last")]).images) == 1


def test_a_job_whose_client_goes_while_it_moves_on_is_not_worked_on(slow: Server) -> None:
    """That it has gone shows when it is told of one stage's end, which is when the job goes to the next one."""
    goes = slow.client()
    goes.send(prompt("x", "[slow]", steps=100))  # ten seconds
    await_progress(goes, "x", "text", 0)
    goes.close()
    eventually(lambda: free_again(slow), "slots free", RELEASE_S)
    eventually(lambda: idle(slow), "stages idle", RELEASE_S)


def test_clients_that_go_at_any_moment_leave_nothing(plain: Server) -> None:
    """Each goes a message later than the one before it."""
    with plain.client() as stays:
        alone = run(stays, [prompt("x", steps=8)]).images["x", 0]
        for patience in range(12):
            goes = plain.client()
            goes.send(prompt("a", "[slow]" if patience % 3 == 2 else "", steps=100))
            goes.send(prompt("b", steps=3, n=2))
            for _ in range(patience):
                assert goes.receive(30.0) is not None
            goes.close()
            assert run(stays, [prompt("x", steps=8)]).images["x", 0] == alone
        eventually(lambda: free_again(plain), "slots free", RELEASE_S)
        eventually(lambda: idle(plain), "stages idle", RELEASE_S)


@pytest.mark.parametrize("where", ["queued", "text", "unet", "vae"])
def test_a_prompt_can_be_cancelled_wherever_it_is(where: str, slow: Server) -> None:
    with slow.client() as client, slow.client() as other:
        if where == "queued":
            for number in range(3):  # two in the text stage, and one
                other.send(prompt(f"{number}", steps=1))
            await_accepted(other, "2")
        client.send(prompt("victim", "[slow]", steps=2 if where == "vae" else 100))
        if where == "queued":
            event = client.receive(30.0)
            assert event is not None
            assert isinstance(event[0], wire.Accepted)
            assert event[0].position > 0
        else:
            await_progress(client, "victim", where, 1 if where == "unet" else 0)  # type: ignore[arg-type]
        client.send(wire.Cancel(id="victim"))
        began = time.monotonic()
        while True:
            event = client.receive(RELEASE_S)
            assert event is not None, "no answer to cancel"
            message = event[0]
            assert not isinstance(message, wire.Image | wire.Done)
            if isinstance(message, wire.Failed):
                break
        assert (message.id, message.code) == ("victim", "cancelled")
        eventually(lambda: free_again(slow), "slots free", RELEASE_S)
        assert time.monotonic() - began < RELEASE_S
        client.send(wire.Cancel(id="victim"))
        answer = client.receive(RELEASE_S)
        assert answer is not None
        assert isinstance(answer[0], wire.Failed)
        assert answer[0].code == "not_found"
        if where == "vae":
            assert len(run(client, [prompt("victim", steps=1)]).images) == 1, "the id may be used again"


def test_a_client_that_never_reads_stops_nobody(plain: Server) -> None:
    with plain.client() as deaf, plain.client() as client:
        for number in range(6):
            deaf.send(prompt(f"{number}", steps=50, trace=True))
        assert len(run(client, [prompt(f"{number}") for number in range(4)]).images) == 4
        eventually(lambda: free_again(plain), "all done", 30.0)


def test_a_server_knows_its_costs_from_the_last_time(tmp_path: Path) -> None:
    heard: list[float | None] = []
    for _ in range(2):
        with serving(*STUBS, cache=tmp_path) as server, server.client() as client:
            [accepted] = [event[0] for event in client.submit(prompt("a")) if isinstance(event[0], wire.Accepted)]
            heard.append(accepted.eta_s)
            server.process.send_signal(signal.SIGTERM)
            server.end()
    assert heard[0] is None
    assert heard[1] is not None
