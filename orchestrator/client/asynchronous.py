"""The client for programs that live in asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from orchestrator.client.blocking import CONNECT_S
from orchestrator.client.conversation import Answers, Conversation, Event, Queue
from orchestrator.client.liveness import SILENCE_S, Liveness
from orchestrator.trace import recording
from stages.core import wire
from stages.core.errors import NoAnswer, TriptychError
from stages.core.link import ClientLink
from stages.core.probe import why_no_answer

_TICK_S = 0.25


class AsyncClient:
    """One connection to a running pipeline. An asynchronous context manager, for one event loop.

    `submit` sends a prompt and returns the stream of its events; any number of streams can be open, and be read by
    any tasks, one task a stream. What comes is read as it comes, whoever waits for it: nobody who reads slowly holds
    up another.

    Every method raises NoAnswer when nothing answers at `address` within `connect_s` seconds, when the server has not
    answered for `silence_s` seconds, and when it was restarted, or the connection lost, with prompts in work. A
    silent server is asked for its status every `ask_s` seconds (None: often while it starts, rarely when it serves).
    After silence the client is of no use any more; after a restart it is.
    """

    def __init__(
        self, address: str, connect_s: float = CONNECT_S, silence_s: float = SILENCE_S, ask_s: float | None = None
    ) -> None:
        self._connect_s = connect_s
        self._link = ClientLink(address, connect_s)
        self._liveness = Liveness(address, silence_s, ask_s, time.monotonic())
        self._conversation = Conversation(address, self._liveness)
        self._changed = asyncio.Event()
        self._care: asyncio.Task[None] | None = None
        self._error: TriptychError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        # The descriptor of a ZeroMQ socket tells of changes only, and only once: after each of them, and after every
        # use of the socket, all that is there has to be taken in. zmq.asyncio does so for a socket of its own; this
        # one is the link's, which is the same for both clients.
        for descriptor in self._link.filenos():
            asyncio.get_running_loop().add_reader(descriptor, self._ready)
        self._care = asyncio.create_task(self._look_after())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, request: wire.Submit) -> "AsyncPrompt":
        """Send one prompt, now, and return its events. Raises Conflict if its id is that of an open stream."""
        self._conversation.check_free(request.id)
        prompt = AsyncPrompt(self, request.id)
        await self._send(request, lambda: self._conversation.opened(prompt.queue))
        return prompt

    async def send(self, message: wire.PromptMessage) -> None:
        """Send a message of which the answers come through `receive`."""
        if isinstance(message, wire.Submit) and not isinstance(message, wire.Quote):
            self._conversation.check_free(message.id)
        await self._send(message, lambda: self._conversation.sent(message))

    async def receive(self) -> Event:
        """The next event of a prompt without a stream, or answer to what was sent; waits until one comes."""
        while not self._conversation.others:
            self.check()
            self._conversation.raise_lost()
            await self._change()
        return self._conversation.others.popleft()

    def cancel(self, *ids: str) -> None:
        """Give up these prompts, if they are in work; never waits. A server that cannot be told has done so already."""
        for id in ids if self._error is None else ():
            message = wire.Cancel(id=id)
            if self._offer(message):
                self._conversation.sent(message)

    async def status(self, timeout_s: float = 5.0) -> wire.Status:
        """The status of the pipeline now."""
        answers = self._conversation.statuses
        await self._ask(wire.StatusRequest(), answers, timeout_s)
        assert answers.newest is not None
        return answers.newest

    async def trace(self, seconds: float, timeout_s: float = 10.0) -> recording.Recording:
        """The recording of the whole pipeline over the last `seconds`, as far as the server remembers."""
        answers = self._conversation.traces
        await self._ask(wire.TraceRequest(seconds=seconds), answers, timeout_s)
        return recording.decode(answers.newest or b"")

    async def close(self) -> None:
        """End the connection; the server cancels what it still had to make for it. A second time changes nothing."""
        if self._closed:
            return
        self._closed = True
        if self._care is not None:
            self._care.cancel()
            await asyncio.wait([self._care])
            for descriptor in self._link.filenos():
                asyncio.get_running_loop().remove_reader(descriptor)
            self._end(NoAnswer("the client was closed"))
        await asyncio.to_thread(self._link.close)  # may wait for a moment until a cancel has left

    def check(self) -> None:
        """Raise what ended the conversation, if it has ended."""
        if self._error is not None:
            raise self._error

    async def _ask(
        self,
        message: wire.StatusRequest | wire.TraceRequest,
        answers: Answers[wire.Status] | Answers[bytes],
        timeout_s: float,
    ) -> None:
        number = 0

        def asked() -> None:
            nonlocal number
            number = answers.ask()
            self._liveness.asked(time.monotonic())

        try:
            async with asyncio.timeout(timeout_s + self._connect_s):
                await self._send(message, asked)
                async with asyncio.timeout(timeout_s):
                    while answers.lost(number) or not answers.answered(number):
                        self.check()
                        if answers.lost(number):
                            await self._send(message, asked)
                        else:
                            await self._change()
        except TimeoutError:
            self._conversation.write_off()
            raise NoAnswer(f"{self._link.address} does not answer; is it still running?") from None

    async def _send(self, message: wire.ClientMessage, sent: Callable[[], None]) -> None:
        """Send as soon as there is a connection, and say so before anything else happens."""
        deadline = time.monotonic() + self._connect_s
        while True:
            self.check()
            if self._offer(message):
                sent()
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NoAnswer(await asyncio.to_thread(why_no_answer, self._link.address))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_TICK_S, left_s)):
                    await self._change()

    def _offer(self, message: wire.ClientMessage) -> bool:
        if self._link.dropped():
            self._conversation.dropped()
        sent = self._link.offer(message, 0.0)
        asyncio.get_running_loop().call_soon(self._take_in)
        return sent

    async def _change(self) -> None:
        """Wait until something has come, or could be sent."""
        self._changed.clear()
        await self._changed.wait()

    def _take_in(self) -> None:
        """Take in all that is there."""
        if self._error is not None:
            return
        try:
            while (event := self._link.receive(0.0)) is not None:
                self._conversation.take_in(event, time.monotonic())
                self._changed.set()
        except TriptychError as error:
            self._end(error)

    def _ready(self) -> None:
        """Note a change at the socket: a message has come, a connection, or room to send."""
        self._take_in()
        self._changed.set()

    async def _look_after(self) -> None:
        """See, several times a second, whether the server lives."""
        try:
            while self._error is None:
                self._look()
                await asyncio.sleep(_TICK_S)
        except TriptychError as error:
            self._end(error)

    def _look(self) -> None:
        dropped = self._link.dropped()
        self._take_in()
        if dropped:
            self._conversation.dropped()
        else:
            self._conversation.nothing_more()
        now = time.monotonic()
        self._liveness.check(now)
        if self._conversation.busy and self._liveness.ask_due(now) and self._offer(wire.StatusRequest()):
            self._conversation.statuses.ask()
            self._liveness.asked(now)

    def _end(self, error: TriptychError) -> None:
        """End the conversation with an error."""
        if self._error is None:
            self._error = error
            self._conversation.fail(error)
        self._changed.set()


class AsyncPrompt:
    """The events of one prompt, as they come, up to and with `done`. An asynchronous iterator and context manager.

    Where the prompt fails, the next event is raised as the error that it names. Closing it before its end cancels the
    prompt.
    """

    def __init__(self, client: AsyncClient, id: str) -> None:
        self.id = id
        self._client = client
        self._news = asyncio.Event()
        self.queue = Queue(id, self._news.set)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while (event := self.queue.take()) is None:
            if self.queue.ended or self.queue.closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if isinstance(event[0], wire.Failed):
            raise event[0].error()
        return event

    def close(self) -> None:
        """Read no more of it, and give it up if it has not ended."""
        if not (self.queue.ended or self.queue.closed):
            self._client.cancel(self.id)
        self.queue.close()
