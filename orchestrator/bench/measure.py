"""Plays a load at several levels, several times, beside what the pipeline says of itself meanwhile."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from orchestrator import bottleneck
from orchestrator.bench.drive import Played, play
from orchestrator.bench.workload import ArrivalProcess, Closed, Mix, arrivals
from orchestrator.bottleneck import Load
from orchestrator.client import Client, Event
from orchestrator.trace.recording import Recording
from stages.core import wire
from stages.core.errors import BadRequest

ANSWER_S = 30.0

EXPECTED = ("overloaded", "deadline_infeasible")
"""Codes of refusals that are figures; any other code is a failure of the measurement."""


class BenchTask(msgspec.Struct, frozen=True, kw_only=True):
    """The loads to be played."""

    mix: Mix
    levels: tuple[ArrivalProcess, ...]
    jobs: int
    """Prompts of one round."""
    rounds: int
    warm_up: int
    """Prompts that are played before and do not count."""
    seed: int


@dataclass
class Round:
    """One load at one level."""

    played: Played
    loads: list[Load]
    """Loads of the stages meanwhile."""


@dataclass
class LoadLevel:
    """All rounds of one level."""

    arrivals: ArrivalProcess
    rounds: list[Round] = field(default_factory=list)
    recording: Recording | None = None
    """Recording of the last round; None before its end."""

    @property
    def played(self) -> Played:
        """The loads of all rounds as one."""
        records = [record for one in self.rounds for record in one.played.records]
        return Played(records, self.rounds[0].played.began, sum(one.played.span_s for one in self.rounds))

    @property
    def loads(self) -> list[Load]:
        """The loads of the stages on average, by name."""
        span_s = self.played.span_s
        found: dict[str, list[tuple[float, Load]]] = {}
        for one in self.rounds:
            for load in one.loads:
                found.setdefault(load.name, []).append((one.played.span_s / span_s, load))
        return [
            msgspec.structs.replace(
                parts[0][1],
                busy_share=sum(part * load.busy_share for part, load in parts),
                cores_used=sum(part * load.cores_used for part, load in parts),
            )
            for parts in found.values()
        ]


@dataclass
class Measured:
    """The results of a benchmark: all levels, and the status at the end."""

    levels: list[LoadLevel]
    first_image: float | None
    """Time at which the very first image came, seconds of time.monotonic."""
    after: wire.Status
    """Status of the pipeline after all rounds."""


def measure(client: Client, task: BenchTask, status: wire.Status, tick: Callable[[str, int, int], None]) -> Measured:
    """Warm up, play every level in every round, there and back so that a drift hits all alike.

    `tick` is called with what is done now and how many of how many prompts have ended. Raises BadRequest where the
    mix asks for what is not served, NoAnswer when the server has gone.
    """
    levels = [LoadLevel(with_concurrency(process, status)) for process in task.levels]
    counter = _Counter(tick, task.warm_up + task.jobs * task.rounds * len(levels))
    # As many at once as there will ever be: on the way out all sizes of forwards have been compiled.
    most = max(
        (level.arrivals.in_flight or 1 for level in levels if isinstance(level.arrivals, Closed)),
        default=None,
    )
    counter.what = "warm-up"
    warm = Closed(most or capacity(status))
    played = play(client, arrivals(task.mix, warm, task.warm_up, task.seed), warm.in_flight, heard=counter.heard)
    _check(played)
    for number in range(task.rounds):
        for level in levels if number % 2 == 0 else reversed(levels):
            counter.what = f"{level.arrivals}, round {number + 1} of {task.rounds}"
            load = arrivals(task.mix, level.arrivals, task.jobs, task.seed + number)
            in_flight = level.arrivals.in_flight if isinstance(level.arrivals, Closed) else None
            before, began = client.status(ANSWER_S), time.monotonic()
            played = play(client, load, in_flight, heard=counter.heard)
            seconds, after = time.monotonic() - began, client.status(ANSWER_S)
            _check(played)
            level.rounds.append(Round(played, bottleneck.between(before.stages, after.stages, seconds)))
            if number == task.rounds - 1:
                level.recording = client.trace(seconds, ANSWER_S)
    return Measured(levels, counter.first_image, client.status(ANSWER_S))


def with_concurrency(process: ArrivalProcess, status: wire.Status) -> ArrivalProcess:
    """The arrivals, with the number in flight that the pipeline can make use of where none was named."""
    return Closed(capacity(status)) if isinstance(process, Closed) and process.in_flight is None else process


def capacity(status: wire.Status) -> int:
    """Number of prompts, of one image each, that the stages may hold."""
    return sum(stage.depth for stage in status.stages)


class _Counter:
    """Counts what has ended, and notices the first image."""

    def __init__(self, tick: Callable[[str, int, int], None], total: int) -> None:
        self.what = ""
        self.first_image: float | None = None
        self._tick = tick
        self._total = total
        self._ended = 0

    def heard(self, event: Event) -> None:
        """Count a message that has come."""
        if isinstance(event[0], wire.Image) and self.first_image is None:
            self.first_image = time.monotonic()
        if isinstance(event[0], wire.Done | wire.Failed):
            self._ended += 1
        self._tick(self.what, self._ended, self._total)


def _check(played: Played) -> None:
    """Raise BadRequest for a prompt that can never be served: it makes the whole load meaningless."""
    for record in played.records:
        if record.code == BadRequest.code:
            raise BadRequest(f"{record.kind}: {record.message}")


def failures(levels: Sequence[LoadLevel]) -> dict[str, str]:
    """The failures other than refusals that a load may meet: message by code."""
    records = [record for level in levels for record in level.played.records]
    return {record.code: record.message for record in records if record.code and record.code not in EXPECTED}
