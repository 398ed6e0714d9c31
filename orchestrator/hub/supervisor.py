"""The supervisor: which stage processes should live. Pure: no processes, signals or clock; decisions come as data.

The life of one process, with the event that moves it (kill: its deadline has passed)::

    (none) --start--> LOADING --loaded--> SERVING --exited--> LOADING (spawned anew)
                         |  ^                 |
                exited   |  | spawned anew    | stop
                         v  |                 v
                     attempts left?       STOPPING --exited--> GONE
                         | no                 |
                         v                    '-- deadline: kill
                      give up

Stages are started in pipeline order and stopped in reverse, one by one, as in OTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from stages.core.errors import StartFailed, TriptychError, by_code


class State(Enum):
    """Where in its life a process is; the values are the words `status` shows."""

    LOADING = "loading"
    SERVING = "serving"
    STOPPING = "stopping"
    GONE = "gone"


class Spawn(msgspec.Struct, frozen=True):
    """Start a process for `stage`."""

    stage: str


class Stop(msgspec.Struct, frozen=True):
    """Ask the process of `stage` to leave."""

    stage: str


class Kill(msgspec.Struct, frozen=True):
    """Kill the process of `stage`, which did not do in time what it had to."""

    stage: str


class GiveUp(msgspec.Struct, frozen=True):
    """The pipeline cannot be had; say `error` and end."""

    error: TriptychError


Action = Spawn | Stop | Kill | GiveUp


@dataclass
class Life:
    """What is known of one stage's process."""

    state: State = State.GONE
    deadline: float | None = None
    """When it will be killed, seconds of the caller's clock."""
    failed_loads: int = 0
    """Deaths while loading, in a row."""
    restarts: int = 0
    """Processes spawned after the first."""
    cause: TriptychError | None = None
    """Why it says it cannot load."""
    overdue: bool = False


class Supervisor:
    """One child a stage. Every public method returns what is to be done, in order; times are seconds."""

    def __init__(self, stages: Sequence[str], attempts: int, load_s: float, stop_s: float) -> None:
        self._attempts = attempts
        self._load_s = load_s
        self._stop_s = stop_s
        self._stopping = False
        self.children = {stage: Life() for stage in stages}

    @property
    def serving(self) -> bool:
        """Whether every stage can take jobs."""
        return all(child.state is State.SERVING for child in self.children.values())

    @property
    def gone(self) -> bool:
        """Whether no process is left."""
        return all(child.state is State.GONE for child in self.children.values())

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min((c.deadline for c in self.children.values() if c.deadline is not None), default=None)

    def start(self, now: float) -> list[Action]:
        """Spawn everything."""
        return [self._spawn(stage, now) for stage in self.children]

    def loaded(self, stage: str) -> None:
        """The process has loaded."""
        child = self.children[stage]
        if child.state is State.LOADING:
            child.state, child.deadline, child.failed_loads, child.cause = State.SERVING, None, 0, None

    def load_failed(self, stage: str, code: str, message: str) -> None:
        """The process says why it cannot load; it will exit."""
        self.children[stage].cause = by_code(code)(f"{stage}: {message}")

    def exited(self, stage: str, how: str, now: float) -> list[Action]:
        """The process has ended; `how` says so in words."""
        child = self.children[stage]
        was, child.state, child.deadline = child.state, State.GONE, None
        if self._stopping:
            return self._stop_next(now)
        if was is State.LOADING:
            child.failed_loads += 1
            overdue = f"{stage} did not load within {self._load_s:g} s (deadlines.load_s)" if child.overdue else None
            cause = child.cause or StartFailed(overdue or f"{stage} {how} while loading")
            # A wrong model or configuration stays wrong; other deaths may be luck.
            if cause.exit_status == 2 or child.failed_loads >= self._attempts:
                return [GiveUp(cause)]
        child.restarts += 1
        return [self._spawn(stage, now)]

    def stop(self, now: float) -> list[Action]:
        """Stop everything, last stage first."""
        self._stopping = True
        return self._stop_next(now)

    def tick(self, now: float) -> list[Action]:
        """Act on deadlines that have passed."""
        actions: list[Action] = []
        for stage, child in self.children.items():
            if child.deadline is not None and child.deadline <= now:
                child.deadline, child.overdue = None, True
                actions.append(Kill(stage))
        return actions

    def _spawn(self, stage: str, now: float) -> Spawn:
        child = self.children[stage]
        child.state, child.deadline, child.cause, child.overdue = State.LOADING, now + self._load_s, None, False
        return Spawn(stage)

    def _stop_next(self, now: float) -> list[Action]:
        """Stop the last stage that lives, unless one is stopping already."""
        if any(child.state is State.STOPPING for child in self.children.values()):
            return []
        for stage, child in reversed(self.children.items()):
            if child.state is not State.GONE:
                child.state, child.deadline = State.STOPPING, now + self._stop_s
                return [Stop(stage)]
        return []
