"""The supervisor: which child processes should live. Pure: no processes, signals or clock; decisions come as data.

The life of one child, with the event that moves it::

    GONE --start--> LOADING --loaded--> SERVING
                     ^   |                 |
                     |   | exited          | exited
                     |   v                 v
                     |  may it die once more? --no--> given up, GONE
                     |   | yes
                     |   v
                     '- BACKOFF        due at once after a first failure, later after further ones

    LOADING, SERVING --stop--> STOPPING --exited--> GONE
    BACKOFF --stop--> GONE

While it loads, attempts in a row are counted; while it serves, deaths within the window of its restart intensity. An
essential child that is given up ends the pipeline (GiveUp); any other is done without (Abandon).

A process that takes too long to load, or to leave, is killed. Children are started in the order given and stopped in
reverse, one by one, as in OTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from orchestrator.hub.child_spec import ChildSpec
from stages.core.errors import StartFailed, TriptychError, by_code


class State(Enum):
    """Where in its life a child is; the values are the words `status` shows."""

    LOADING = "loading"
    SERVING = "serving"
    BACKOFF = "backoff"
    """It has no process; one will be started at its deadline."""
    STOPPING = "stopping"
    GONE = "gone"


class Spawn(msgspec.Struct, frozen=True):
    """Start a process of `child`."""

    child: str


class Stop(msgspec.Struct, frozen=True):
    """Ask the process of `child` to leave."""

    child: str


class Kill(msgspec.Struct, frozen=True):
    """Kill the process of `child`, which did not do in time what it had to."""

    child: str


class Abandon(msgspec.Struct, frozen=True):
    """Go on without `child`, which is not essential; `error` is why no process of it will be started any more."""

    child: str
    error: TriptychError


class GiveUp(msgspec.Struct, frozen=True):
    """The pipeline cannot be had; say `error` and end."""

    error: TriptychError


Action = Spawn | Stop | Kill | Abandon | GiveUp


@dataclass
class Life:
    """What is known of one child, over all its processes."""

    spec: ChildSpec
    state: State = State.GONE
    deadline: float | None = None
    """When it will be killed, or started after a backoff; seconds of the caller's clock."""
    spawns: int = 0
    """Processes started."""
    served: bool = False
    """Whether any process of it has ever loaded."""
    failed_loads: int = 0
    """Deaths while loading, in a row."""
    deaths: list[float] = field(default_factory=list)
    """When it died in service, within the window of its restart intensity; empty where it has none."""
    cause: TriptychError | None = None
    """Why it says it cannot load."""
    overdue: bool = False

    @property
    def restarts(self) -> int:
        """Processes started after the first."""
        return max(0, self.spawns - 1)

    def forget_deaths(self, now: float) -> None:
        """Forget the deaths in service that lie before the window of the child's restart intensity."""
        if (borne := self.spec.restart.intensity) is not None:
            self.deaths = [at for at in self.deaths if now - at <= borne.window_s]


class Supervisor:
    """One process a child, at most. Every public method returns what is to be done, in order; times are seconds."""

    def __init__(self, specs: Sequence[ChildSpec]) -> None:
        """`specs` in the order in which they are started. Raises ValueError if two have one name."""
        self._stopping = False
        self.children = {spec.name: Life(spec) for spec in specs}
        if len(self.children) < len(specs):
            raise ValueError(f"children of one name among {[spec.name for spec in specs]}")

    @property
    def serving(self) -> bool:
        """Whether every essential child serves."""
        return all(life.state is State.SERVING for life in self.children.values() if life.spec.essential)

    @property
    def served(self) -> bool:
        """Whether any essential child has ever served."""
        return any(life.served for life in self.children.values() if life.spec.essential)

    @property
    def gone(self) -> bool:
        """Whether no process is left, of whichever child, and none is due."""
        return all(life.state is State.GONE for life in self.children.values())

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min((life.deadline for life in self.children.values() if life.deadline is not None), default=None)

    def start(self, now: float) -> list[Action]:
        """Spawn everything."""
        return [self._spawn(life, now) for life in self.children.values()]

    def loaded(self, child: str) -> None:
        """The process has loaded."""
        life = self.children[child]
        if life.state is State.LOADING:
            life.state, life.deadline, life.failed_loads, life.cause = State.SERVING, None, 0, None
            life.served = True

    def load_failed(self, child: str, code: str, message: str) -> None:
        """The process says why it cannot load; it will exit."""
        self.children[child].cause = by_code(code)(f"{child}: {message}")

    def exited(self, child: str, how: str, now: float) -> list[Action]:
        """The process has ended, or could not be started; `how` says so in words."""
        life = self.children[child]
        was, life.state, life.deadline = life.state, State.GONE, None
        if self._stopping:
            return self._stop_next(now)
        life.forget_deaths(now)
        error = _failed_to_load(life, how) if was is State.LOADING else _died_in_service(life, how, now)
        if error is not None:
            return [GiveUp(error) if life.spec.essential else Abandon(child, error)]
        delay_s = life.spec.restart.delay_s(life.failed_loads + len(life.deaths))
        if delay_s > 0:
            life.state, life.deadline = State.BACKOFF, now + delay_s
            return []
        return [self._spawn(life, now)]

    def stop(self, now: float) -> list[Action]:
        """Stop everything, the last child first."""
        self._stopping = True
        for life in self.children.values():
            if life.state is State.BACKOFF:
                life.state, life.deadline = State.GONE, None
        return self._stop_next(now)

    def tick(self, now: float) -> list[Action]:
        """Act on deadlines that have passed."""
        actions: list[Action] = []
        for child, life in self.children.items():
            if life.deadline is None or life.deadline > now:
                continue
            if life.state is State.BACKOFF:
                actions.append(self._spawn(life, now))
            else:
                life.deadline, life.overdue = None, True
                actions.append(Kill(child))
        return actions

    def _spawn(self, life: Life, now: float) -> Spawn:
        life.state, life.deadline, life.cause, life.overdue = State.LOADING, now + life.spec.load_s, None, False
        life.spawns += 1
        return Spawn(life.spec.name)

    def _stop_next(self, now: float) -> list[Action]:
        """Stop the last child that lives, unless one is stopping already."""
        if any(life.state is State.STOPPING for life in self.children.values()):
            return []
        for child, life in reversed(self.children.items()):
            if life.state is not State.GONE:
                life.state, life.deadline = State.STOPPING, now + life.spec.stop_s
                return [Stop(child)]
        return []


def _failed_to_load(life: Life, how: str) -> TriptychError | None:
    """Count a death while loading; the error with which the child is given up, if that was its last attempt."""
    spec = life.spec
    life.failed_loads += 1
    overdue = f"{spec.name} did not load within {spec.load_s:g} s (deadlines.load_s)" if life.overdue else None
    cause = life.cause or StartFailed(overdue or f"{spec.name} {how} while loading")
    # A wrong model or configuration stays wrong; other deaths may be luck.
    return cause if cause.exit_status == 2 or life.failed_loads >= spec.restart.attempts else None


def _died_in_service(life: Life, how: str, now: float) -> TriptychError | None:
    """Count a death in service; the error with which the child is given up, if it has died too often of late."""
    borne = life.spec.restart.intensity
    if borne is None:
        return None
    life.deaths.append(now)
    if len(life.deaths) <= borne.deaths:
        return None
    return StartFailed(f"{life.spec.name} {how}: {len(life.deaths)} deaths in service within {borne.window_s:g} s")
