"""The way from a command to a pipeline, its own or another's: one place that notices when the other end is gone."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from orchestrator.cli.options import Private, Remote
from orchestrator.client import Client, Event
from orchestrator.launch import Pipeline, private_pipeline
from orchestrator.weights import locate
from stages.core import wire
from stages.core.config import load
from stages.core.errors import NoAnswer, ShuttingDown

_TRY_S = 0.2
"""How long one attempt to send may keep the display and Ctrl-C waiting."""

REACH_S = {Remote: 5.0, Private: 20.0}
"""A running server is connected to at once; one of our own has a Python to start first."""

ASK_S = {"starting": 0.25, "serving": 2.0, "draining": 2.0}
"""Seconds of silence after which the server is asked for its status; while it starts, there is something to show."""

SILENCE_S = 30.0
_LAST_WORDS_S = 5.0
"""A child of ours that takes nothing more may need this long to say why, and to end."""


class Connection:
    """A client of a pipeline that may still be starting. Times are seconds of time.monotonic."""

    def __init__(self, client: Client, reach_s: float, pipeline: Pipeline | None = None) -> None:
        self.connected = False
        self.status: wire.Status | None = None
        """The newest status that came."""
        self._client = client
        self._pipeline = pipeline
        self._give_up = time.monotonic() + reach_s
        self._heard = self._asked = time.monotonic()

    def send(self, message: wire.ClientMessage) -> None:
        """Send, once connected. Raises NoAnswer, or what ended our own pipeline."""
        try:
            self._client.send(message)
        except NoAnswer:
            if self._pipeline is not None:
                self._pipeline.poll(_LAST_WORDS_S)
            raise

    def receive(self, wait_s: float) -> Event | None:
        """The next message; None if none comes in `wait_s` seconds, or while there is no connection yet.

        Raises NoAnswer when the server is gone, silent, or another than before; or what ended our own pipeline.
        """
        if not self.connected:
            self._connect()
            return None
        event = self._client.receive(wait_s)
        now = time.monotonic()
        if event is not None:
            self._heard = now
            match event[0]:
                case wire.Status() as status:
                    self._take_in(status)
                case wire.Failed(code=ShuttingDown.code) if self._pipeline is not None:
                    # Nobody but us could ask it to stop, so it gives up, and will say why.
                    self._pipeline.poll(_LAST_WORDS_S)
            return event
        if self._pipeline is not None:
            self._pipeline.poll()
        if now - self._heard > SILENCE_S:
            raise NoAnswer(f"the server has been silent for {SILENCE_S:.0f} s; is it still running?")
        if now - max(self._heard, self._asked) >= ASK_S[self.status.state if self.status else "starting"]:
            self._asked = now
            self.send(wire.StatusRequest())
        return None

    def stderr(self) -> str:
        """What our own pipeline wrote on its standard error, from the end as far back as it is kept."""
        return self._pipeline.stderr() if self._pipeline is not None else ""

    def cancel(self, ids: Iterable[str]) -> None:
        """Give up these prompts; a server that is gone has done so already."""
        try:
            for id in ids:
                self._client.send(wire.Cancel(id=id))
        except NoAnswer:
            return

    def _connect(self) -> None:
        try:
            self._client.send(wire.StatusRequest())
        except NoAnswer:
            if self._pipeline is not None:
                self._pipeline.poll()
            if time.monotonic() > self._give_up:
                raise
        else:
            self.connected = True
            self._heard = self._asked = time.monotonic()

    def _take_in(self, status: wire.Status) -> None:
        if self.status is not None and status.hub_pid != self.status.hub_pid:
            raise NoAnswer("the server was restarted and knows nothing of these prompts; send them again")
        self.status = status


@contextmanager
def connect(target: Remote | Private, debug: bool = False) -> Iterator[Connection]:
    """A connection to a running pipeline, or to one that is started now and stopped at the end.

    Raises ConfigError for a configuration that cannot be; the other errors come from the connection.
    """
    reach_s = REACH_S[type(target)]
    if isinstance(target, Remote):
        with Client(target.address, _TRY_S) as client:
            yield Connection(client, reach_s)
    else:
        locate(load(target.config, target.overrides))  # mistakes are told, and downloads made, before the start
        with (
            private_pipeline(target.config, target.overrides, debug) as pipeline,
            Client(pipeline.address, _TRY_S) as client,
        ):
            yield Connection(client, reach_s, pipeline)
