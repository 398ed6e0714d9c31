"""The client of asyncio against a server that answers as told."""

import asyncio
import select
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.client import AsyncClient, AsyncPrompt, Event, asynchronous
from orchestrator.trace.recording import Recording, encode
from stages.core import wire
from stages.core.errors import Cancelled, Conflict, NoAnswer, StageLost
from tests.unit.client.test_client import nothing, prompt, stubborn
from tests.unit.fake_hub import DEADLINE_S, Answer, FakeHub, failing, painted
from tests.unit.statuses import status


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def play(hub: FakeHub, part: Callable[[AsyncClient], Awaitable[None]], **how: float) -> None:
    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S), AsyncClient(hub.address, DEADLINE_S, **how) as client:
            await part(client)

    asyncio.run(whole())


async def read(events: AsyncPrompt) -> list[Event]:
    return [event async for event in events]


def test_streams_are_read_side_by_side_by_tasks_of_their_own(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        streams = [await client.submit(prompt(str(number), n=2)) for number in range(20)]
        found = await asyncio.gather(*map(read, reversed(streams)))
        for number, events in enumerate(reversed(found)):
            assert [payload for _, payload in events if payload] == [f"prompt {number} {i}".encode() for i in range(2)]
            assert isinstance(events[-1][0], wire.Done)

    play(hub, part)


def test_a_prompt_is_sent_at_the_call_and_kept_for_who_reads_late(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        late, soon = await client.submit(prompt("1")), await client.submit(prompt("2"))
        assert len(await read(soon)) == 4
        assert hub.wait_for(lambda: len(hub.submits()) == 2)
        assert len(await read(late)) == 4

    play(hub, part)


def test_what_came_while_something_was_sent_is_not_left_lying(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Using the socket takes its descriptor's news away: nobody would be told of what has come already."""

    held = threading.Event()

    def later(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.Submit):
            held.wait(DEADLINE_S)
        yield from painted(message)

    async def part(client: AsyncClient) -> None:
        events = await client.submit(prompt("1"))
        await asyncio.sleep(0)  # a turn of the loop: what sending it has set off
        held.set()
        assert select.select([client._link.filenos()[0]], [], [], DEADLINE_S)[0]
        client.cancel("of somebody else")
        assert len(await read(events)) == 4

    hub.answers = later
    monkeypatch.setattr(asynchronous, "_TICK_S", 60.0)
    play(hub, part)


def test_a_failure_is_raised(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        with pytest.raises(StageLost, match="the reason"):
            await read(await client.submit(prompt("1")))

    hub.answers = failing("stage_lost", "prompt 1")
    play(hub, part)


def test_a_stream_that_is_closed_before_its_end_cancels_its_prompt(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        async with await client.submit(prompt("1")) as events:
            await anext(events)
            with pytest.raises(Conflict):
                await client.submit(prompt("1"))
        again = await client.submit(prompt("1"))
        client.cancel("1")
        with pytest.raises(Cancelled):
            await read(again)
        assert hub.wait_for(lambda: len(hub.received) == 4)
        assert [type(message) for message in hub.received] == [wire.Submit, wire.Cancel, wire.Submit, wire.Cancel]

    hub.answers = stubborn
    play(hub, part)


def test_a_task_that_is_cancelled_gives_its_prompt_up(hub: FakeHub) -> None:
    async def work(client: AsyncClient, begun: asyncio.Event) -> None:
        async with await client.submit(prompt("1")) as events:
            await anext(events)
            begun.set()
            await anext(events)

    async def part(client: AsyncClient) -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(work(client, begun))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        await client.status()
        assert wire.Cancel(id="1") in hub.received

    hub.answers = stubborn
    play(hub, part)


def test_status_and_trace_are_answered_beside_prompts(hub: FakeHub) -> None:
    told = Recording(0, 1, 7, (), ())

    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.TraceRequest):
            yield wire.Trace(), encode(told)
        else:
            yield from painted(message)

    async def part(client: AsyncClient) -> None:
        events = await client.submit(prompt("1"))
        one, two, trace = await asyncio.gather(client.status(), client.status(), client.trace(1.0))
        assert one == two == status()
        assert trace == told
        assert len(await read(events)) == 4

    hub.answers = answers
    play(hub, part)


def test_nobody_there_is_told(tmp_path: Path) -> None:
    async def whole() -> None:
        async with AsyncClient(f"ipc://{tmp_path}/nobody", connect_s=0.05) as client:
            for ask in (client.status(), client.submit(prompt("1"))):
                with pytest.raises(NoAnswer, match="nothing listens"):
                    await ask

    asyncio.run(whole())


def test_waiting_for_a_server_is_no_work(tmp_path: Path) -> None:
    async def whole() -> float:
        async with AsyncClient(f"ipc://{tmp_path}/nobody", connect_s=0.5) as client:
            began = time.thread_time()
            with pytest.raises(NoAnswer):
                await client.status()
            return time.thread_time() - began

    assert asyncio.run(whole()) < 0.2


def test_a_server_that_does_not_answer_is_told(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        with pytest.raises(NoAnswer, match="does not answer"):
            await client.status(timeout_s=0.05)

    hub.answers = nothing
    play(hub, part)


def test_a_silent_server_is_asked_and_given_up(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        with pytest.raises(NoAnswer, match="silent for 0 s"):
            await read(await client.submit(prompt("1")))
        with pytest.raises(NoAnswer, match="silent"):
            await client.submit(prompt("2"))
        assert hub.wait_for(lambda: wire.StatusRequest() in hub.received)

    hub.answers = nothing
    play(hub, part, silence_s=0.3, ask_s=0.01)


def test_an_idle_client_asks_nothing(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        assert len(await read(await client.submit(prompt("1")))) == 4
        for _ in range(5):
            client._look()  # as it does several times a second
        assert len(await read(await client.submit(prompt("2")))) == 4  # what was sent before has been heard
        assert hub.wait_for(lambda: len(hub.received) >= 2)
        assert [type(message) for message in hub.received[:2]] == [wire.Submit, wire.Submit]

    play(hub, part, ask_s=0.0)


def test_a_restart_ends_what_was_there_and_nothing_that_comes(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        events = await client.submit(prompt("1"))
        await client.status()
        hub.answers = lambda message: iter([status(hub_pid=77)])
        await client.status()
        with pytest.raises(NoAnswer, match="was restarted"):
            await read(events)
        hub.answers = painted
        assert len(await read(await client.submit(prompt("1")))) == 4

    hub.answers = stubborn
    play(hub, part)


def test_a_lost_connection_is_noticed() -> None:
    async def whole() -> None:
        with FakeHub() as first:
            first.answers = stubborn
            client = AsyncClient(first.address, DEADLINE_S)
            await client.__aenter__()
            events = await client.submit(prompt("1"))
            await anext(events)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(NoAnswer, match=r"connection to .* was lost"):
                await anext(events)
        await client.close()

    asyncio.run(whole())


def test_a_client_that_is_closed_ends_its_streams(hub: FakeHub) -> None:
    async def part(client: AsyncClient) -> None:
        events = await client.submit(prompt("1"))
        reader = asyncio.create_task(read(events))
        await client.status()
        await client.close()
        with pytest.raises(NoAnswer, match="closed"):
            await reader

    hub.answers = stubborn
    play(hub, part)
