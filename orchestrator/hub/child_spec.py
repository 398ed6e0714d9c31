"""A child of the hub as data: how it is started, whether it is needed, and how often it may die."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from stages.core.config import StageSpec

_DOUBLINGS = 32
"""At most, of a wait: beyond, any cap has long been reached, and numbers would grow too large for a float."""


class Lifeline(msgspec.Struct, frozen=True):
    """A child's tie to the hub; its command line passes both numbers on in whatever form it has."""

    fd: int
    """Descriptor of the child's end of a socket pair. Nothing is ever written to the child: once it is readable, the
    child is to leave, because it was told to or because the hub has died. To read it then gives end of file, or
    ECONNRESET where the hub died before it read what was written here. A child that is no stage writes one byte on it
    when it has loaded."""
    parent: int
    """Process id of the hub, for a child that has the kernel kill it when its parent dies (PR_SET_PDEATHSIG)."""


class Intensity(msgspec.Struct, frozen=True):
    """Restart intensity as in OTP: `deaths` within `window_s` seconds are borne, one more is not."""

    deaths: int
    window_s: float


class Restart(msgspec.Struct, frozen=True):
    """When a child that died is started again, and when it is given up."""

    attempts: int
    """Deaths while loading, in a row, after which it is given up."""
    intensity: Intensity | None = None
    """Limit of deaths in service. None: any number is borne, and each is followed by a new process at once."""
    backoff_s: float = 0.5
    """Seconds before the second start after failures that follow each other; doubled for each further one."""
    backoff_cap_s: float = 30.0
    """Seconds that it waits at most."""

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after this many failures that follow each other; none after the first."""
        if failures <= 1:
            return 0.0
        return min(self.backoff_cap_s, self.backoff_s * 2.0 ** min(failures - 2, _DOUBLINGS))


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that the hub must know to keep a child alive.

    What the child writes to its standard error is passed on, its standard output is not. A terminal's Ctrl-C reaches it
    as well, but is the hub's to handle: a child ignores SIGINT.
    """

    name: str
    argv: Callable[[Lifeline], Sequence[str]]
    """Its command line, given the life-line of the process that is about to be started."""
    pass_fds: tuple[int, ...] = ()
    """Descriptors it inherits, beside its life-line."""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Variables set beside those that all children get."""
    nice: int = 0
    """Added to the hub's own nice level; the sum is 19 at most."""
    essential: bool
    """Whether the pipeline ends when it is given up, and serves only while it does."""
    restart: Restart
    load_s: float
    """Seconds it may load before it is killed: `deadlines.load_s`, which the message names."""
    stop_s: float
    """Seconds it may take to leave, once told to, before it is killed."""
    stage: StageSpec | None = None
    """All that a stage is told, but for its life-line; None where the child is no stage. Stages are told to stop, and
    say that they have loaded, by messages; other children by their life-line."""
