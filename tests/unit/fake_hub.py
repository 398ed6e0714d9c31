"""A server without a pipeline, for tests of clients."""

import threading
from collections.abc import Callable, Iterator

import zmq

from stages.core import wire
from stages.core.link import ClientHub, private_address
from tests.unit.statuses import status

DEADLINE_S = 20.0
TIMINGS = wire.Timings(queue_s=5.0, text_s=0.1, unet_s=0.2, vae_s=0.3, total_s=6.2)

Answer = wire.HubMessage | tuple[wire.HubMessage, bytes] | bytes
"""A message, one with a frame, or what a client should make of itself."""
Answers = Callable[[wire.ClientMessage], Iterator[Answer]]


class FakeHub:
    """A server that answers as told, in a thread of the test."""

    def __init__(self, address: str | None = None) -> None:
        self.answers: Answers = painted
        self.received: list[wire.ClientMessage] = []
        self.told = threading.Condition()
        self._stop = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._hub = ClientHub(self._context, address or private_address())
        self.address = self._hub.address
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._context.destroy(linger=0)

    def submits(self) -> list[wire.Submit]:
        return [message for message in self.received if isinstance(message, wire.Submit)]

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        with self.told:
            return self.told.wait_for(condition, DEADLINE_S)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._hub.socket.poll(20)
            for peer, frame in self._hub.receive():
                assert frame is not None, "a client sent something else than one frame"
                message = wire.decode_client_message(frame)
                for answer in self.answers(message):
                    if isinstance(answer, bytes):
                        self._hub.socket.send_multipart((peer.routing_id, answer))
                        continue
                    answered, payload = answer if isinstance(answer, tuple) else (answer, None)
                    self._hub.send(peer.routing_id, answered, payload)
                with self.told:
                    self.received.append(message)
                    self.told.notify_all()


def image(submit: wire.Submit, index: int = 0) -> tuple[wire.Image, bytes]:
    seed = (submit.seed or 100) + index
    message = wire.Image(
        id=submit.id, index=index, format=submit.output_format, width=8, height=8, seed=seed, timings=TIMINGS
    )
    return message, f"{submit.prompt} {index}".encode()


def painted(message: wire.ClientMessage) -> Iterator[Answer]:
    """Every prompt at once."""
    if isinstance(message, wire.StatusRequest):
        yield status()
    if isinstance(message, wire.Submit):
        yield wire.Accepted(id=message.id, position=0, eta_s=None)
        yield wire.Progress(id=message.id, stage="text", step=0, steps=1)
        for index in range(message.n):
            yield image(message, index)
        if message.trace:
            piece = wire.Slice("work", 0, "text-0", 7, 1, 1000, 2000)
            yield wire.Traced(id=message.id, slices=(piece,))
        yield wire.Done(id=message.id)


def failing(code: str, prompt: str) -> Answers:
    def answers(message: wire.ClientMessage) -> Iterator[Answer]:
        if isinstance(message, wire.Submit) and message.prompt == prompt:
            yield wire.Failed(id=message.id, code=code, message="the reason", retryable=False)
        else:
            yield from painted(message)

    return answers
