"""Children for tests of those that start or judge them."""

from collections.abc import Callable, Mapping, Sequence

from orchestrator.hub.child_spec import ChildSpec, Lifeline, Restart

THREE_ATTEMPTS = Restart(attempts=3)


def child_spec(
    name: str = "child",
    argv: Callable[[Lifeline], Sequence[str]] = lambda lifeline: ("true",),
    *,
    essential: bool = True,
    restart: Restart = THREE_ATTEMPTS,
    load_s: float = 60.0,
    stop_s: float = 2.0,
    pass_fds: tuple[int, ...] = (),
    env: Mapping[str, str] | None = None,
    nice: int = 0,
) -> ChildSpec:
    return ChildSpec(
        name=name,
        argv=argv,
        pass_fds=pass_fds,
        env=env or {},
        nice=nice,
        essential=essential,
        restart=restart,
        load_s=load_s,
        stop_s=stop_s,
    )
