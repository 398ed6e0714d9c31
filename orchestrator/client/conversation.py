"""The state of one connection: which message belongs to which prompt, what is still to come. Pure.

A client sends through whatever waits for it, tells the conversation what it has sent, and hands it every message that
comes. Messages about a prompt with a stream go into the stream's queue; those about other prompts wait in `others`, as
do the answers to quotes, attaches and forgets; answers about the server are in `statuses` and `traces`. The hub answers
a connection in the order of its requests.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from orchestrator.client.liveness import Liveness
from stages.core import wire
from stages.core.errors import Cancelled, Conflict, NoAnswer, TriptychError

Event = tuple[wire.HubMessage, bytes | None]
"""A message of the hub, and the encoded picture if it is an `image` or a `preview`."""

UNREAD = 256
"""Events that may wait in a stream; from there on, news that newer news has overtaken is dropped."""

A = TypeVar("A")


class Queue:
    """The unread events of one prompt, which end with a terminal message or with an error.

    Bounded, whoever reads or not: beyond UNREAD, of `progress`, `waiting` and `preview` only the newest of each image
    is kept. All else comes once: a message for each image that was asked for, and the encoded image with it.
    """

    def __init__(self, id: str, wake: Callable[[], None] = lambda: None) -> None:
        self.id = id
        self.ended = False
        """Whether nothing will come any more."""
        self.closed = False
        """Whether nobody reads any more."""
        self.cancels = 0
        """Number of cancels on their way; each is answered once."""
        self._events: deque[Event] = deque()
        self._error: TriptychError | None = None
        self._wake = wake

    def add(self, event: Event) -> None:
        """Append an event that has come."""
        if not self.closed:
            if len(self._events) >= UNREAD and isinstance(event[0], wire.News):
                self._drop_overtaken(event[0])
            self._events.append(event)
        self._wake()

    def fail(self, error: TriptychError) -> None:
        """End with an error: nothing will come any more, and this is why."""
        self.ended = True
        self._error = error
        self._wake()

    def take(self) -> Event | None:
        """The next event; None if there is none now. After the others, raises what the prompt was lost to."""
        if self._events:
            return self._events.popleft()
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Forget what is here and what will come."""
        self.closed = True
        self._events.clear()
        self._error = None
        self._wake()

    def _drop_overtaken(self, news: wire.News) -> None:
        same = (type(news), getattr(news, "index", None))
        for event in self._events:
            if (type(event[0]), getattr(event[0], "index", None)) == same:
                self._events.remove(event)
                return


class Answers(Generic[A]):
    """Answers about the server, which come in the order of the questions."""

    def __init__(self) -> None:
        self.newest: A | None = None
        self._asked = 0
        self._answered = 0
        self._lost = 0

    def ask(self) -> int:
        """Note a question that has been sent; returns its number, to wait for."""
        self._asked += 1
        return self._asked

    def came(self, answer: A) -> None:
        """Note an answer that has come."""
        self.newest = answer
        self._answered = min(self._answered + 1, self._asked)

    def answered(self, number: int) -> bool:
        """Whether question `number` has been answered."""
        return self._answered >= number

    @property
    def pending(self) -> bool:
        """Whether a question has not been answered."""
        return self._answered < self._asked

    def lost(self, number: int) -> bool:
        """Whether question `number` will not be answered any more."""
        return number <= self._lost

    def write_off(self) -> None:
        """Give up the questions that have been asked: they will not be answered any more."""
        self._answered = self._lost = self._asked


class Conversation:
    """All prompts and questions of one connection."""

    def __init__(self, address: str, liveness: Liveness) -> None:
        self.others: deque[Event] = deque()
        """Events of prompts without a stream, in the order in which they came; for `receive`."""
        self.statuses: Answers[wire.Status] = Answers()
        self.traces: Answers[bytes] = Answers()
        self._address = address
        self._liveness = liveness
        self._queues: dict[str, deque[Queue]] = {}
        """Queues by id, in the order in which they were sent: one that was closed may still have answers to come."""
        self._without: set[str] = set()
        """Prompts in work that have no stream."""
        self._cut_off: list[Queue] = []
        self._cut_off_others: set[str] = set()
        self._lost: NoAnswer | None = None

    # What is sent.

    def check_free(self, id: str) -> None:
        """Raise Conflict if there is an open stream of this id."""
        if any(not (queue.closed or queue.ended) for queue in self._queues.get(id, ())):
            raise Conflict(f"`id` {id!r} is that of a prompt of this client that has not ended; choose another")

    def opened(self, queue: Queue) -> None:
        """Note that the prompt of a stream has been sent."""
        self._queues.setdefault(queue.id, deque()).append(queue)

    def sent(self, message: wire.PromptMessage) -> None:
        """Note that a message without a stream has been sent."""
        match message:
            case wire.Quote():
                pass
            case wire.Submit(id=id):
                self._without.add(id)
            case wire.Cancel(id=id) if id in self._queues:
                self._queues[id][-1].cancels += 1
            case _:
                pass

    # What comes.

    def take_in(self, event: Event, now: float) -> None:
        """Put a message where it belongs."""
        self._liveness.heard(now)
        message, payload = event
        if isinstance(message, wire.Status):
            self.statuses.came(message)
            if self._liveness.is_another(message):
                self._cut()
                self._lose("the server was restarted and knows nothing of these prompts; send them again")
        elif isinstance(message, wire.Trace):
            self.traces.came(payload or b"")
        elif isinstance(message, wire.Attached):
            self._without.update(message.in_work)
            self.others.append(event)
        elif message.id in self._queues:
            self._take_in_of_stream(self._queues[message.id][0], event)
        else:
            if isinstance(message, wire.Done | wire.Failed):
                self._without.discard(message.id)
            self.others.append(event)

    def dropped(self) -> None:
        """Note that the connection has ended, maybe after a last word that is still to be taken in."""
        self._cut()
        self.write_off()

    def write_off(self) -> None:
        """Give up the questions about the server: they will not be answered any more."""
        self.statuses.write_off()
        self.traces.write_off()

    def nothing_more(self) -> None:
        """Note that no more messages are there now: what was cut off, and has not ended with a last word, is lost.

        The server gives up the prompts of a connection that ends, whether or not it lives on.
        """
        if self._cut_off or self._cut_off_others:
            self._lose(
                f"the connection to {self._address} was lost; the server has ended or was restarted, and knows nothing "
                "of these prompts; send them again"
            )

    @property
    def busy(self) -> bool:
        """Whether anything is still to come."""
        return bool(self._queues or self._without or self.statuses.pending or self.traces.pending)

    def fail(self, error: TriptychError) -> None:
        """End the conversation with an error: nothing will come for any stream."""
        for queue in [queue for queues in self._queues.values() for queue in queues]:
            self._forget(queue)
            if not queue.ended:
                queue.fail(error)
        self.write_off()

    def raise_lost(self) -> None:
        """Raise NoAnswer, once, if prompts without a stream have been lost."""
        error, self._lost = self._lost, None
        if error is not None:
            raise error

    def _take_in_of_stream(self, queue: Queue, event: Event) -> None:
        message = event[0]
        if queue.ended:  # so this is the answer to a cancel that came too late
            queue.cancels -= 1
        else:
            if isinstance(message, wire.Failed) and message.code == Cancelled.code and queue.cancels:
                queue.cancels -= 1
            queue.ended = isinstance(message, wire.Done | wire.Failed)
            queue.add(event)
        if queue.ended and not queue.cancels:
            self._forget(queue)

    def _cut(self) -> None:
        self._cut_off += [queue for queues in self._queues.values() for queue in queues]
        self._cut_off_others |= self._without

    def _lose(self, why: str) -> None:
        error = NoAnswer(why)
        for queue in self._cut_off:
            if queue in self._queues.get(queue.id, ()):
                self._forget(queue)
                if not queue.ended:
                    queue.fail(error)
        if lost := self._cut_off_others & self._without:
            self._without -= lost
            self._lost = error
        self._cut_off, self._cut_off_others = [], set()

    def _forget(self, queue: Queue) -> None:
        queues = self._queues[queue.id]
        queues.remove(queue)
        if not queues:
            del self._queues[queue.id]
