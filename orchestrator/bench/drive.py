"""Sends a load on time, whatever becomes of it, and takes down what becomes of it."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.bench.workload import Arrival
from orchestrator.client import Event
from stages.core import wire

_LONGEST_WAIT_S = 1.0


class PromptSink(Protocol):
    """The client that prompts are sent through, or a wrapper of one. Notices when the server has gone."""

    def send(self, message: wire.Submit) -> None:
        """Send one prompt. Raises NoAnswer."""

    def receive(self, timeout_s: float, /) -> Event | None:
        """The next message, or None when `timeout_s` seconds pass first. Raises NoAnswer."""

    def cancel(self, *ids: str) -> None:
        """Give these prompts up."""


@dataclass
class Record:
    """One prompt and what became of it. Times are seconds since the start of the load."""

    kind: str
    due_s: float
    """Time at which it arrived: waiting from here on counts, also where the sender was late."""
    sent_s: float
    accepted_s: float | None = None
    first_image_s: float | None = None
    done_s: float | None = None
    """Time at which its last answer came, whether it was done or refused; None before that."""
    timings: list[wire.Timings] = field(default_factory=list)
    """Timings of each image that came."""
    code: str | None = None
    """Code that it failed with; None for one that was done."""
    message: str = ""
    eta_s: float | None = None
    """Seconds until it would be done, as it was told when it was accepted."""

    @property
    def latency_s(self) -> float | None:
        """Seconds from when it was due until all its images were there; None for one that failed."""
        return None if self.done_s is None or self.code is not None else self.done_s - self.due_s


@dataclass
class Played:
    """A load that has been played to its end."""

    records: list[Record]
    """Records of the prompts, in the order of arrival."""
    began: float
    """Start of the load, seconds on the clock of `play`."""
    span_s: float
    """Seconds from the start until the last answer."""


def play(
    line: PromptSink,
    arrivals: Sequence[Arrival],
    in_flight: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    heard: Callable[[Event], None] = lambda event: None,
) -> Played:
    """Send every prompt when it is due, and return when each has ended.

    Those with a time are due then, whatever became of the others, and their latency counts from then. Those without
    are due as soon as fewer than `in_flight` are out (None: at once). `heard` is called with every message that
    comes meanwhile. Ids must be unique among the arrivals. Raises what the line raises. Whatever is raised,
    Ctrl-C too, what is still out is cancelled.
    """
    out: dict[str, Record] = {}
    try:
        return _play(line, arrivals, out, in_flight, clock, heard)
    except BaseException:
        line.cancel(*out)
        raise


def _play(
    line: PromptSink,
    arrivals: Sequence[Arrival],
    out: dict[str, Record],
    in_flight: int | None,
    clock: Callable[[], float],
    heard: Callable[[Event], None],
) -> Played:
    """Play a load as `play` does; `out` has the prompts that have been sent and have not ended."""
    began = clock()
    waiting = deque(arrivals)
    records: list[Record] = []
    free_s = 0.0  # when the last place in a closed loop became free
    while waiting or out:
        # 1. Send what is due.
        now = clock() - began
        while waiting and _due(waiting[0], now, len(out), in_flight):
            arrival = waiting.popleft()
            due_s = free_s if arrival.at_s is None else arrival.at_s
            record = out[arrival.submit.id] = Record(arrival.kind, due_s, clock() - began)
            records.append(record)
            line.send(arrival.submit)
        # 2. Take one message in, but be back when the next prompt is due.
        wait_s = _LONGEST_WAIT_S
        if waiting and (at_s := waiting[0].at_s) is not None:
            wait_s = min(wait_s, max(0.0, at_s - (clock() - began)))
        event = line.receive(wait_s)
        now = clock() - began
        if event is None:
            continue
        # 3. Take it down.
        ended = _note(event[0], out, now)
        if ended is not None:
            del out[ended]
            free_s = now
        heard(event)
    return Played(records, began, clock() - began)


def _due(arrival: Arrival, now: float, out: int, in_flight: int | None) -> bool:
    if arrival.at_s is not None:
        return arrival.at_s <= now
    return in_flight is None or out < in_flight


def _note(message: wire.HubMessage, out: Mapping[str, Record], now: float) -> str | None:
    """Take down what a message says of a prompt of ours; its id, if it has ended with that."""
    match message:
        case wire.Accepted(id=id, eta_s=eta_s) if id in out:
            out[id].accepted_s, out[id].eta_s = now, eta_s
        case wire.Image(id=id, timings=timings) if id in out:
            out[id].timings.append(timings)
            if out[id].first_image_s is None:
                out[id].first_image_s = now
        case wire.Done(id=id) if id in out:
            out[id].done_s = now
            return id
        case wire.Failed(id=id, code=code, message=why) if id in out:
            out[id].done_s, out[id].code, out[id].message = now, code, why
            return id
        case _:
            pass
    return None
