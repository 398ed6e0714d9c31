"""Run a candidate for real: a pipeline of its own, warmed up, under the load that the simulator plays, too."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from orchestrator import bottleneck
from orchestrator.bench.drive import play
from orchestrator.client import Client, Event, own_pipeline
from orchestrator.tuning.load import load, warm_up
from orchestrator.tuning.score import Score, steady
from orchestrator.tuning.simulate import HUB
from orchestrator.tuning.space import Candidate
from stages.core import figures, wire

_TICK_S = 0.2

LOAD = "load"
"""Name, in `cores_used`, of the client that plays the load: it needs cores, too."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run of a candidate."""

    candidate: Candidate
    score: Score
    in_flight: int
    jobs: int
    steps: int
    seconds: float
    """Seconds from the first prompt that counted to the last picture."""
    cores_used: dict[str, float]
    """CPU seconds a second of every stage process, by name, of the hub, and of the client (LOAD)."""
    messages: int
    """Number of messages from the hub to the client."""
    pss_bytes: int
    """PSS of all stage processes together, afterwards, in bytes."""
    bottleneck: wire.Bottleneck = wire.Bottleneck(limits=None, why="", change="")


class _TickingClient:
    """A client whose silence is filled with ticks, and which counts what it hears."""

    def __init__(self, client: Client, tick: Callable[[], None]) -> None:
        self._client = client
        self._tick = tick
        self.messages = 0

    def send(self, message: wire.Submit) -> None:
        self._client.send(message)

    def receive(self, timeout_s: float, /) -> Event | None:
        event = self._client.receive(min(timeout_s, _TICK_S))
        self._tick()
        self.messages += event is not None
        return event

    def cancel(self, *ids: str) -> None:
        self._client.cancel(*ids)


class TrialPipeline:
    """A pipeline that serves as a candidate has it, and nobody else."""

    def __init__(self, candidate: Candidate, in_flight: int, client: Client, line: _TickingClient) -> None:
        self._candidate = candidate
        self._in_flight = in_flight
        self._client = client
        self._line = line
        self._played = 0

    def warm_up(self, steps: int) -> None:
        """Play a short load that does not count. Raises StageFault if a prompt fails."""
        warm = play(self._line, warm_up(self._in_flight, steps), self._in_flight)
        self._played += self._in_flight
        steady(warm.records, None)  # a prompt that fails is better known now

    def play(self, jobs: int, steps: int) -> Trial:
        """Play `jobs` prompts of `steps` steps. Raises what ends the pipeline, and StageFault if a prompt fails."""
        me = psutil.Process()
        before, cpu = self._client.status(60.0), _cpu_s(me)
        self._line.messages = 0
        began = time.monotonic()
        played = play(self._line, load(jobs, steps, self._played), self._in_flight)
        self._played += jobs
        seconds = time.monotonic() - began
        after = self._client.status(60.0)
        own = (_cpu_s(me) - cpu) / seconds
        loads = bottleneck.between(before.stages, after.stages, seconds)
        used = {load.name: load.cores_used for load in loads}
        used |= {HUB: (after.hub_cpu_s - before.hub_cpu_s) / seconds, LOAD: own}
        return Trial(
            candidate=self._candidate,
            score=steady(played.records, self._in_flight),
            in_flight=self._in_flight,
            jobs=jobs,
            steps=steps,
            seconds=seconds,
            cores_used=used,
            messages=self._line.messages,
            pss_bytes=sum(stage.pss_bytes for stage in after.stages),
            bottleneck=bottleneck.find(loads, bottleneck.Host.of(after)),
        )


@contextmanager
def trial_pipeline(
    config: Path | None,
    overrides: Sequence[str],
    candidate: Candidate,
    in_flight: int,
    tick: Callable[[], None] = lambda: None,
    load_s: float = 600.0,
) -> Iterator[TrialPipeline]:
    """Start the candidate's pipeline for loads with `in_flight` prompts out, and stop it at the end.

    `tick` is called several times a second. Raises what ends the pipeline.
    """
    keys = [*overrides, *candidate.overrides(), f"pipeline.queue_limit={max(64, in_flight)}"]
    with own_pipeline(config, keys) as client:
        client.wait_serving(lambda _: tick(), load_s)
        yield TrialPipeline(candidate, in_flight, client, _TickingClient(client, tick))


def run(
    config: Path | None,
    overrides: Sequence[str],
    candidate: Candidate,
    in_flight: int,
    jobs: int,
    steps: int,
    tick: Callable[[], None] = lambda: None,
) -> Trial:
    """Play one load on a pipeline of its own: start it, warm it up, play, stop it. Raises as `TrialPipeline.play`."""
    with trial_pipeline(config, overrides, candidate, in_flight, tick) as pipeline:
        pipeline.warm_up(steps)
        return pipeline.play(jobs, steps)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class TrialStore:
    """Trials that were run, kept in the user's cache folder, so that no run is made twice without need."""

    def __init__(self, facts: object, store: figures.FigureStore | None = None) -> None:
        self._store = store or figures.FigureStore("trials")
        self._facts = facts

    def read(self) -> tuple[Trial, ...]:
        """Trials that were remembered, oldest first."""
        return self._store.read(self._facts, tuple[Trial, ...]) or ()

    def add(self, trial: Trial) -> None:
        """Remember one more."""
        self._store.write(self._facts, (*self.read(), trial))
