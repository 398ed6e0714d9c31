"""The client for programs that wait for what they asked."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.client.conversation import Conversation, Event, Queue
from orchestrator.client.launch import Pipeline, private_pipeline
from orchestrator.client.liveness import SILENCE_S, Liveness
from orchestrator.trace import recording
from stages.core import wire
from stages.core.errors import NoAnswer, ShuttingDown, StartFailed
from stages.core.link import ClientLink
from stages.core.probe import why_no_answer

CONNECT_S = 5.0
"""Seconds to connect to a running server, which listens already."""

OWN_CONNECT_S = 20.0
"""Seconds to connect to a server of our own, which has a Python to start first."""

_TICK_S = 0.25
"""Seconds that one wait for a message, or for a connection, may keep all else waiting."""

_LAST_WORDS_S = 5.0
"""Seconds that a pipeline of our own that takes nothing more may need to say why, and to end."""


class Client:
    """One connection to a pipeline that runs, or is starting. A context manager, for one thread.

    `submit` sends a prompt and returns the stream of its events; any number of streams can be open, and be read in
    any order. Programs that keep the books of many prompts themselves use `send` and `receive` instead. What came
    for one prompt while another was waited for is kept.

    Every method raises NoAnswer when nothing answers at `address` within `connect_s` seconds, when the server has not
    answered for `silence_s` seconds, and when it was restarted, or the connection lost, with prompts in work; and what
    ended `pipeline` (StartFailed, ConfigError), if the server is our own. A silent server is asked for its status
    every `ask_s` seconds (None: often while it starts, rarely when it serves).
    """

    def __init__(
        self,
        address: str,
        connect_s: float = CONNECT_S,
        silence_s: float = SILENCE_S,
        ask_s: float | None = None,
        pipeline: Pipeline | None = None,
    ) -> None:
        self.pipeline = pipeline
        """The server, if it is our own."""
        self.connected = False
        """Whether there has been a connection."""
        self._connect_s = connect_s
        self._give_up = time.monotonic() + connect_s
        self._link = ClientLink(address, connect_s)
        self._liveness = Liveness(address, silence_s, ask_s, time.monotonic())
        self._conversation = Conversation(address, self._liveness)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_status(self) -> wire.Status | None:
        """The newest status that came, asked for by whomever."""
        return self._liveness.status

    # Prompts.

    def submit(self, request: wire.Submit) -> "Prompt":
        """Send one prompt, now, and return its events. Raises Conflict if its id is that of an open stream."""
        self._conversation.check_free(request.id)
        self._send(request)
        queue = Queue(request.id)
        self._conversation.opened(queue)
        return Prompt(self, queue)

    def cancel(self, *ids: str) -> None:
        """Give up these prompts, if they are in work; never waits. A server that cannot be told has done so already."""
        for id in ids:
            message = wire.Cancel(id=id)
            if self._link.offer(message, 0.0):
                self._conversation.sent(message)

    def send(self, message: wire.PromptMessage) -> None:
        """Send a message of which the answers come through `receive`."""
        if isinstance(message, wire.Submit) and not isinstance(message, wire.Quote):
            self._conversation.check_free(message.id)
        self._send(message)
        self._conversation.sent(message)

    def receive(self, timeout_s: float) -> Event | None:
        """The next event of a prompt without a stream; None if none comes in `timeout_s` seconds.

        While there is no connection yet, None means that it was tried for.
        """
        deadline = time.monotonic() + timeout_s
        while not self._conversation.others:
            self._conversation.raise_lost()
            left_s = deadline - time.monotonic()
            if not self._take_in(max(0.0, left_s)) and (left_s <= 0 or not self.connected):
                return None
        return self._conversation.others.popleft()

    # The server.

    def status(self, timeout_s: float = 5.0) -> wire.Status:
        """The status of the pipeline now."""
        answers = self._conversation.statuses
        self._await(lambda: self._ask(wire.StatusRequest(), answers.ask), answers.answered, answers.lost, timeout_s)
        assert answers.newest is not None
        return answers.newest

    def trace(self, seconds: float, timeout_s: float = 10.0) -> recording.Recording:
        """The recording of the whole pipeline over the last `seconds`, as far as the server remembers."""
        answers = self._conversation.traces
        request = wire.TraceRequest(seconds=seconds)
        self._await(lambda: self._ask(request, answers.ask), answers.answered, answers.lost, timeout_s)
        return recording.decode(answers.newest or b"")

    def wait_serving(
        self, tick: Callable[[wire.Status | None], None] = lambda status: None, timeout_s: float = 600.0
    ) -> wire.Status:
        """Wait until all stages have loaded. `tick` is called with the newest status several times a second.

        Raises StartFailed after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (status := self.last_status) is None or status.state != "serving":
            tick(status)
            if time.monotonic() > deadline:
                raise StartFailed(f"the pipeline has not loaded within {timeout_s:.0f} s")
            self._take_in(_TICK_S)
        return status

    def close(self) -> None:
        """End the connection; the server cancels what it still had to make for it."""
        self._link.close()

    # Waiting.

    def next_event(self, queue: Queue) -> Event | None:
        """The next event of a stream; None after its end."""
        while (event := queue.take()) is None and not (queue.ended or queue.closed):
            self._take_in(_TICK_S)
        return event

    def _await(
        self,
        ask: Callable[[], int],
        answered: Callable[[int], bool],
        lost: Callable[[int], bool],
        timeout_s: float,
    ) -> None:
        number = ask()
        deadline = time.monotonic() + timeout_s
        while lost(number) or not answered(number):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._conversation.write_off()
                raise NoAnswer(f"{self._link.address} does not answer; is it still running?")
            if lost(number):
                number = ask()
            self._take_in(left_s)

    def _ask(self, message: wire.StatusRequest | wire.TraceRequest, count: Callable[[], int]) -> int:
        self._send(message)
        self._liveness.asked(time.monotonic())
        return count()

    def _send(self, message: wire.ClientMessage) -> None:
        """Send, as soon as there is a connection."""
        deadline = time.monotonic() + self._connect_s
        while not self._offer(message, min(_TICK_S, self._connect_s)):
            self._poll_pipeline()
            if time.monotonic() >= deadline:
                self._poll_pipeline(_LAST_WORDS_S)
                raise NoAnswer(why_no_answer(self._link.address))

    def _offer(self, message: wire.ClientMessage, wait_s: float) -> bool:
        if self._link.dropped():
            self._conversation.dropped()
        sent = self._link.offer(message, wait_s)
        self.connected |= sent
        return sent

    def _take_in(self, wait_s: float) -> bool:
        """Take one message in, or see after the server; whether one has come in `wait_s` seconds, or a moment less."""
        if not self.connected:
            self._connect(wait_s)
            return False
        event = self._link.receive(min(wait_s, _TICK_S))
        now = time.monotonic()
        if event is not None:
            self._conversation.take_in(event, now)
            if isinstance(event[0], wire.Failed) and event[0].code == ShuttingDown.code:
                # Nobody but us could ask our own pipeline to stop, so it gives up, and will say why.
                self._poll_pipeline(_LAST_WORDS_S)
            return True
        self._poll_pipeline()
        if self._link.dropped():
            self._conversation.dropped()
            self._poll_pipeline(_LAST_WORDS_S)
        else:
            self._conversation.nothing_more()
        self._liveness.check(now)
        if self._liveness.ask_due(now) and self._link.offer(wire.StatusRequest(), 0.0):
            self._conversation.statuses.ask()
            self._liveness.asked(now)
        return False

    def _connect(self, wait_s: float) -> None:
        if self._offer(wire.StatusRequest(), min(wait_s, _TICK_S)):
            self._conversation.statuses.ask()
            self._liveness.asked(time.monotonic())
            return
        self._poll_pipeline()
        if time.monotonic() > self._give_up:
            raise NoAnswer(why_no_answer(self._link.address))

    def _poll_pipeline(self, wait_s: float = 0.0) -> None:
        if self.pipeline is not None:
            self.pipeline.poll(wait_s)


class Prompt:
    """The events of one prompt, as they come, up to and with `done`. An iterator and a context manager.

    Where the prompt fails, the next event is raised as the error that it names. Closing it before its end cancels the
    prompt.
    """

    def __init__(self, client: Client, queue: Queue) -> None:
        self.id = queue.id
        self._client = client
        self._queue = queue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._client.next_event(self._queue)
        if event is None:
            raise StopIteration
        if isinstance(event[0], wire.Failed):
            raise event[0].error()
        return event

    def close(self) -> None:
        """Read no more of it, and give it up if it has not ended."""
        if not (self._queue.ended or self._queue.closed):
            self._client.cancel(self.id)
        self._queue.close()


@contextmanager
def own_pipeline(
    config: Path | None = None, overrides: Iterable[str] = (), debug: bool = False, ask_s: float | None = None
) -> Iterator[Client]:
    """Start a pipeline that nobody else knows, and stop it at the end; as orchestrator.client.launch does."""
    with (
        private_pipeline(config, tuple(overrides), debug) as pipeline,
        Client(pipeline.address, OWN_CONNECT_S, ask_s=ask_s, pipeline=pipeline) as client,
    ):
        yield client
