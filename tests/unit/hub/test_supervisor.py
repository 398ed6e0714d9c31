from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.hub.child_spec import ChildSpec, Intensity, Restart
from orchestrator.hub.supervisor import Abandon, Action, GiveUp, Kill, Spawn, State, Stop, Supervisor
from stages.core.errors import StartFailed
from tests.unit.hub.child_specs import child_spec

LOAD_S, STOP_S, ATTEMPTS = 100.0, 5.0, 3
STAGES = ("text", "unet", "vae")

AT_ONCE = Restart(attempts=ATTEMPTS, backoff_s=0.0)
SPECS = [child_spec(stage, restart=AT_ONCE, load_s=LOAD_S, stop_s=STOP_S) for stage in STAGES]

RARELY = Restart(attempts=3, intensity=Intensity(deaths=3, window_s=60.0), backoff_s=2.0, backoff_cap_s=3.0)
GATEWAY = child_spec("gateway", essential=False, restart=RARELY, load_s=10.0, stop_s=1.0)
NEEDED = child_spec("needed", restart=RARELY, load_s=10.0, stop_s=1.0)

History = list[tuple[str, tuple[object, ...], str]]
"""Events with their arguments, and the actions that must follow, in words."""


def supervisor() -> Supervisor:
    return Supervisor(SPECS)


def words(actions: Sequence[Action] | None) -> str:
    said = []
    for action in actions or ():
        match action:
            case GiveUp(error):
                said.append(f"give up, exit {error.exit_status}: {error.message}")
            case Abandon(child, error):
                said.append(f"abandon {child}: {error.message}")
            case Spawn(child) | Stop(child) | Kill(child):
                said.append(f"{type(action).__name__.lower()} {child}")
    return ", ".join(said)


def play(history: History, specs: Sequence[ChildSpec] = SPECS) -> Supervisor:
    one = Supervisor(specs)
    for place, (event, arguments, expected) in enumerate(history):
        assert words(getattr(one, event)(*arguments)) == expected, f"event {place}: {event}{arguments}"
    return one


START: History = [("start", (0.0,), "spawn text, spawn unet, spawn vae")]
SERVING: History = [*START, *(("loaded", (stage,), "") for stage in STAGES)]
DIED = "was killed by SIGSEGV"

HISTORIES: dict[str, History] = {
    "a death while serving is followed by a new process, however often": [
        *SERVING,
        ("exited", ("unet", DIED, 1.0), "spawn unet"),
        ("loaded", ("unet",), ""),
        ("exited", ("unet", DIED, 1.1), "spawn unet"),
        ("loaded", ("unet",), ""),
        ("exited", ("unet", DIED, 1.2), "spawn unet"),
        ("loaded", ("unet",), ""),
        ("exited", ("unet", DIED, 1.3), "spawn unet"),
    ],
    "deaths while loading are counted, and the last one is told of": [
        *START,
        ("exited", ("vae", "ended with status 1", 1.0), "spawn vae"),
        ("exited", ("vae", "ended with status 1", 2.0), "spawn vae"),
        ("exited", ("vae", DIED, 3.0), f"give up, exit 3: vae {DIED} while loading"),
    ],
    "each stage has attempts of its own": [
        *START,
        ("exited", ("text", DIED, 1.0), "spawn text"),
        ("exited", ("unet", DIED, 1.0), "spawn unet"),
        ("exited", ("vae", DIED, 1.0), "spawn vae"),
        ("exited", ("text", DIED, 1.0), "spawn text"),
        ("exited", ("unet", DIED, 1.0), "spawn unet"),
        ("exited", ("unet", DIED, 1.0), f"give up, exit 3: unet {DIED} while loading"),
    ],
    "only deaths in a row count": [
        *START,
        ("exited", ("vae", DIED, 1.0), "spawn vae"),
        ("exited", ("vae", DIED, 2.0), "spawn vae"),
        ("loaded", ("vae",), ""),
        ("exited", ("vae", DIED, 3.0), "spawn vae"),
        ("exited", ("vae", DIED, 4.0), "spawn vae"),
        ("exited", ("vae", DIED, 5.0), "spawn vae"),
        ("exited", ("vae", DIED, 6.0), f"give up, exit 3: vae {DIED} while loading"),
    ],
    "a stage that is respawned may fail to load as well": [
        *SERVING,
        ("exited", ("text", DIED, 1.0), "spawn text"),
        ("exited", ("text", DIED, 2.0), "spawn text"),
        ("exited", ("text", DIED, 3.0), "spawn text"),
        ("exited", ("text", DIED, 4.0), f"give up, exit 3: text {DIED} while loading"),
    ],
    "a wrong model stays wrong": [
        *START,
        ("load_failed", ("unet", "bad_model", "unet.xml: cut short"), ""),
        ("exited", ("unet", "ended with status 2", 1.0), "give up, exit 2: unet: unet.xml: cut short"),
    ],
    "a wrong configuration stays wrong": [
        *START,
        ("load_failed", ("unet", "bad_config", "no such class"), ""),
        ("exited", ("unet", "ended with status 2", 1.0), "give up, exit 2: unet: no such class"),
    ],
    "another reason may be luck, and the last one is told": [
        *START,
        ("load_failed", ("unet", "start_failed", "first"), ""),
        ("exited", ("unet", "ended with status 3", 1.0), "spawn unet"),
        ("load_failed", ("unet", "start_failed", "second"), ""),
        ("exited", ("unet", "ended with status 3", 2.0), "spawn unet"),
        ("load_failed", ("unet", "start_failed", "third"), ""),
        ("exited", ("unet", "ended with status 3", 3.0), "give up, exit 3: unet: third"),
    ],
    "a reason does not outlive its process": [
        *START,
        ("load_failed", ("unet", "start_failed", "first"), ""),
        ("exited", ("unet", "ended with status 3", 1.0), "spawn unet"),
        ("exited", ("unet", DIED, 2.0), "spawn unet"),
        ("exited", ("unet", DIED, 3.0), f"give up, exit 3: unet {DIED} while loading"),
    ],
    "what loads too long is killed once, and counted": [
        *START,
        ("loaded", ("text",), ""),
        ("loaded", ("vae",), ""),
        ("tick", (99.9,), ""),
        ("tick", (100.0,), "kill unet"),
        ("tick", (100.1,), ""),
        ("exited", ("unet", "was killed", 100.2), "spawn unet"),
        ("tick", (200.1,), ""),
        ("tick", (200.2,), "kill unet"),
        ("exited", ("unet", "was killed", 200.3), "spawn unet"),
        ("tick", (301.0,), "kill unet"),
        (
            "exited",
            ("unet", "was killed", 301.0),
            "give up, exit 3: unet did not load within 100 s (deadlines.load_s)",
        ),
    ],
    "that it loaded too long is told of that process alone": [
        *START,
        ("tick", (100.0,), "kill text, kill unet, kill vae"),
        ("exited", ("unet", "was killed", 100.1), "spawn unet"),
        ("exited", ("unet", DIED, 101.0), "spawn unet"),
        ("exited", ("unet", DIED, 102.0), f"give up, exit 3: unet {DIED} while loading"),
    ],
    "what has loaded has no deadline": [*SERVING, ("tick", (1e9,), "")],
    "the last stage is stopped first, and the next one when it has gone": [
        *SERVING,
        ("stop", (10.0,), "stop vae"),
        ("exited", ("vae", "ended", 10.1), "stop unet"),
        ("exited", ("unet", "ended", 10.2), "stop text"),
        ("exited", ("text", "ended", 10.3), ""),
    ],
    "what does not stop in time is killed": [
        *SERVING,
        ("stop", (10.0,), "stop vae"),
        ("tick", (14.9,), ""),
        ("tick", (15.0,), "kill vae"),
        ("tick", (16.0,), ""),
        ("exited", ("vae", "was killed", 16.0), "stop unet"),
        ("tick", (20.9,), ""),
        ("tick", (21.0,), "kill unet"),
        ("exited", ("unet", "was killed", 21.0), "stop text"),
        ("exited", ("text", "ended", 21.0), ""),
    ],
    "what dies out of turn while all stop is not spawned, nor stopped": [
        *SERVING,
        ("stop", (10.0,), "stop vae"),
        ("exited", ("unet", DIED, 10.1), ""),
        ("exited", ("vae", "ended", 10.2), "stop text"),
        ("exited", ("text", "ended", 10.3), ""),
    ],
    "what is loading is stopped like the others, whatever comes of it": [
        *START,
        ("loaded", ("text",), ""),
        ("stop", (10.0,), "stop vae"),
        ("loaded", ("vae",), ""),
        ("load_failed", ("unet", "bad_model", "cut short"), ""),
        ("exited", ("unet", "ended with status 2", 10.1), ""),
        ("exited", ("vae", "ended", 10.2), "stop text"),
        ("exited", ("text", "ended", 10.3), ""),
    ],
    "asking twice changes nothing": [*SERVING, ("stop", (10.0,), "stop vae"), ("stop", (11.0,), "")],
    "nothing is stopped before anything was started": [("stop", (0.0,), "")],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_follows_from_what(name: str) -> None:
    play(HISTORIES[name])


def died(child: str, at: float, expected: str = "") -> History:
    return [("exited", (child, DIED, at), expected)]


def serves(child: str, at: float) -> History:
    return [("tick", (at,), f"spawn {child}"), ("loaded", (child,), "")]


GATEWAY_SERVES: History = [
    ("start", (0.0,), "spawn needed, spawn gateway"),
    *(("loaded", (n,), "") for n in ("needed", "gateway")),
]

BACKOFFS: dict[str, History] = {
    "the first death is followed at once, further ones after a wait that doubles up to the cap": [
        *GATEWAY_SERVES,
        *died("gateway", 1.0, "spawn gateway"),
        ("loaded", ("gateway",), ""),
        *died("gateway", 2.0),
        ("tick", (3.9,), ""),
        *serves("gateway", 4.0),
        *died("gateway", 5.0),
        ("tick", (7.9,), ""),  # 3.0 is the cap
        *serves("gateway", 8.0),
    ],
    "one death more than its intensity bears, and it is done without": [
        *GATEWAY_SERVES,
        *died("gateway", 1.0, "spawn gateway"),
        ("loaded", ("gateway",), ""),
        *died("gateway", 2.0),
        *serves("gateway", 4.0),
        *died("gateway", 5.0),
        *serves("gateway", 8.0),
        *died("gateway", 61.0, f"abandon gateway: gateway {DIED}: 4 deaths in service within 60 s"),
        ("tick", (1e9,), ""),
    ],
    "an essential child that dies as often ends the pipeline": [
        *GATEWAY_SERVES,
        *died("needed", 1.0, "spawn needed"),
        ("loaded", ("needed",), ""),
        *died("needed", 2.0),
        *serves("needed", 4.0),
        *died("needed", 5.0),
        *serves("needed", 8.0),
        *died("needed", 9.0, f"give up, exit 3: needed {DIED}: 4 deaths in service within 60 s"),
    ],
    "deaths older than the window count no more, neither for the wait nor for giving up": [
        *GATEWAY_SERVES,
        *died("gateway", 1.0, "spawn gateway"),
        ("loaded", ("gateway",), ""),
        *died("gateway", 2.0),
        *serves("gateway", 4.0),
        *died("gateway", 5.0),
        *serves("gateway", 8.0),
        *died("gateway", 61.1),
        *serves("gateway", 64.1),
        *died("gateway", 200.0, "spawn gateway"),
    ],
    "attempts to load that fail in a row wait as well, and the last one is told of": [
        ("start", (0.0,), "spawn needed, spawn gateway"),
        *died("gateway", 1.0, "spawn gateway"),
        *died("gateway", 2.0),
        ("tick", (3.9,), ""),
        ("tick", (4.0,), "spawn gateway"),
        *died("gateway", 5.0, f"abandon gateway: gateway {DIED} while loading"),
        ("tick", (1e9,), "kill needed"),  # what is abandoned has no deadline left
    ],
    "what cannot load after a death in service does not start over with its wait": [
        *GATEWAY_SERVES,
        *died("gateway", 1.0, "spawn gateway"),
        *died("gateway", 2.0),
        ("tick", (3.9,), ""),
        *serves("gateway", 4.0),
    ],
    "a wrong configuration of a child that is not essential is not tried again": [
        ("start", (0.0,), "spawn needed, spawn gateway"),
        ("load_failed", ("gateway", "bad_config", "no such port"), ""),
        *died("gateway", 1.0, "abandon gateway: gateway: no such port"),
    ],
    "what waits to be started is not started, nor stopped, once all stop": [
        *GATEWAY_SERVES,
        *died("gateway", 1.0, "spawn gateway"),
        *died("gateway", 2.0),
        ("stop", (3.0,), "stop needed"),
        ("tick", (3.9,), ""),
        ("exited", ("needed", "ended", 3.9), ""),
        ("tick", (1e9,), ""),
    ],
    "each child has deadlines of its own": [
        ("start", (0.0,), "spawn needed, spawn gateway"),
        ("loaded", ("needed",), ""),
        ("tick", (10.0,), "kill gateway"),
        *died("gateway", 10.0, "spawn gateway"),
        ("stop", (11.0,), "stop gateway"),
        ("tick", (12.0,), "kill gateway"),
        *died("gateway", 12.0, "stop needed"),
    ],
}


@pytest.mark.parametrize("name", BACKOFFS)
def test_what_follows_from_what_after_a_wait(name: str) -> None:
    play(BACKOFFS[name], [NEEDED, GATEWAY])


def test_a_child_that_is_not_essential_keeps_nobody_from_serving_but_must_go_like_the_others() -> None:
    one = Supervisor([NEEDED, GATEWAY])
    one.start(0.0)
    one.loaded("gateway")
    assert not one.serving
    assert not one.served
    one.loaded("needed")
    assert one.serving
    one.exited("gateway", DIED, 1.0)
    one.exited("gateway", DIED, 2.0)
    assert one.children["gateway"].state is State.BACKOFF
    assert one.serving
    assert not one.gone
    assert one.next_deadline == 4.0
    one.exited("needed", DIED, 2.0)
    assert not one.serving
    assert one.served
    one.stop(3.0)
    assert one.children["gateway"].state is State.GONE
    assert one.next_deadline == 4.0  # that of the child that is stopping, by chance the same
    one.exited("needed", "ended", 3.0)
    assert one.gone
    assert one.next_deadline is None


def test_two_children_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="of one name"):
        Supervisor([NEEDED, GATEWAY, GATEWAY])


def test_the_wait_doubles_to_its_cap_and_no_number_of_failures_is_too_large() -> None:
    restart = Restart(attempts=1, backoff_s=0.5, backoff_cap_s=3.0)
    assert [restart.delay_s(failures) for failures in (0, 1, 2, 3, 4, 5, 10_000)] == [0, 0, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_all_serve_only_when_each_does() -> None:
    one = supervisor()
    one.start(0.0)
    for stage in STAGES:
        assert not one.serving
        one.loaded(stage)
    assert one.serving
    one.exited("unet", DIED, 1.0)
    assert not one.serving
    assert [child.state for child in one.children.values()] == [State.SERVING, State.LOADING, State.SERVING]
    one.loaded("unet")
    assert one.serving


def test_all_are_gone_only_when_each_is() -> None:
    one = play([*SERVING, ("stop", (10.0,), "stop vae")])
    for stage in reversed(STAGES):
        assert not one.gone
        one.exited(stage, "ended", 11.0)
    assert one.gone
    assert supervisor().gone


def test_a_stopping_stage_does_not_serve_even_if_it_says_so() -> None:
    one = play([*START, ("stop", (1.0,), "stop vae"), ("loaded", ("vae",), "")])
    assert one.children["vae"].state is State.STOPPING
    assert one.next_deadline == 1.0 + STOP_S


def test_processes_after_the_first_are_counted() -> None:
    one = play(HISTORIES["only deaths in a row count"][:-1])
    assert [child.restarts for child in one.children.values()] == [0, 0, 5]


def test_the_next_deadline_is_the_earliest() -> None:
    one = supervisor()
    assert one.next_deadline is None
    one.start(0.0)
    assert one.next_deadline == LOAD_S
    for stage in STAGES:
        one.loaded(stage)
    assert one.next_deadline is None
    one.exited("vae", DIED, 7.0)
    one.exited("text", DIED, 3.0)
    assert one.next_deadline == 3.0 + LOAD_S
    one.tick(3.0 + LOAD_S)
    assert one.next_deadline == 7.0 + LOAD_S
    one.stop(8.0)
    assert one.next_deadline == 8.0 + STOP_S


def test_the_error_of_giving_up_is_one_to_end_with() -> None:
    one = supervisor()
    one.start(0.0)
    gave_up = [one.exited("unet", DIED, 1.0) for _ in range(ATTEMPTS)][-1][-1]
    assert isinstance(gave_up, GiveUp)
    assert isinstance(gave_up.error, StartFailed)


CHILDREN = {spec.name: spec for spec in [SPECS[0], NEEDED, GATEWAY]}

KINDS = ["serves and dies"] * 15 + ["loaded", "exited", "exited", "load_failed", "tick", "due"] * 2 + ["stop"]

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(list(CHILDREN)),
        st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 5.0, 60.0]),
    ),
    min_size=5,
    max_size=60,
)


class World:
    """Processes as the supervisor's decisions make them; every decision is checked as it is carried out."""

    def __init__(self, one: Supervisor) -> None:
        self.one = one
        self.now = 0.0
        self.living: dict[str, bool] = {}
        """Whether each process that lives has loaded."""
        self.spawned = dict.fromkeys(CHILDREN, 0)
        self.due = dict.fromkeys(CHILDREN, 0.0)
        """When each is to be started."""
        self.in_a_row = dict.fromkeys(CHILDREN, 0)
        """Deaths while loading."""
        self.deaths: dict[str, list[float]] = {name: [] for name in CHILDREN}
        """When each has died in service; of those whose deaths are counted."""
        self.stopped = self.ended = False
        self.abandoned: set[str] = set()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(child):
                    assert not self.stopped
                    assert child not in self.living
                    assert child not in self.abandoned
                    assert self.now >= self.due[child]
                    self.living[child] = False
                    self.spawned[child] += 1
                case Stop(child) | Kill(child):
                    assert child in self.living
                case Abandon(child):
                    assert not CHILDREN[child].essential
                    self.abandoned.add(child)
                case GiveUp():
                    self.ended = True

    def tick(self) -> None:
        self.perform(self.one.tick(self.now))
        assert self.one.next_deadline is None or self.one.next_deadline > self.now

    def exited(self, child: str) -> None:
        restart = CHILDREN[child].restart
        if self.living.pop(child):
            self.in_a_row[child] = 0
            if restart.intensity is not None:
                self.deaths[child].append(self.now)
        else:
            self.in_a_row[child] += 1
        recent = [at for at in self.deaths[child] if self.now - at <= 60.0]
        failures = self.in_a_row[child] + len(recent)
        wait_s = 0.0 if failures < 2 else min(restart.backoff_cap_s, restart.backoff_s * 2 ** (failures - 2))
        self.due[child] = self.now + wait_s
        self.perform(self.one.exited(child, DIED, self.now))
        if not self.stopped:
            given_up = self.ended if CHILDREN[child].essential else child in self.abandoned
            assert given_up == (len(recent) > 3 or self.in_a_row[child] >= restart.attempts)

    def check(self) -> None:
        states = {name: life.state for name, life in self.one.children.items()}
        with_process = {name for name, state in states.items() if state not in (State.GONE, State.BACKOFF)}
        assert with_process == set(self.living)
        assert self.one.gone == all(state is State.GONE for state in states.values())
        assert {name: life.restarts for name, life in self.one.children.items()} == {
            name: max(0, spawned - 1) for name, spawned in self.spawned.items()
        }
        for name, life in self.one.children.items():
            if life.state is State.BACKOFF:
                assert life.deadline == self.due[name]
        if not self.stopped:  # nobody is forgotten: it lives, it will, or it was said that it will not
            assert {name for name, state in states.items() if state is State.GONE} == self.abandoned
            serving = {name for name, loaded in self.living.items() if loaded}
            assert self.one.serving == (serving >= {name for name, spec in CHILDREN.items() if spec.essential})


@settings(max_examples=300)
@given(EVENTS)
def test_whatever_happens_no_child_has_two_processes_none_comes_early_and_none_is_forgotten(
    events: list[tuple[str, str, float]],
) -> None:
    one = Supervisor(list(CHILDREN.values()))
    world = World(one)
    world.perform(one.start(0.0))
    for event, child, later in events:
        world.now += later
        deadline = one.next_deadline if event == "due" else world.one.children[child].deadline
        if event == "due" or (event != "tick" and one.children[child].state is State.BACKOFF):
            world.now = max(world.now, deadline or 0.0)
        if event != "stop":
            world.tick()
        if event == "stop":
            world.stopped = True
            world.perform(one.stop(world.now))
        elif child not in world.living or event in ("tick", "due"):
            pass
        elif event == "load_failed":
            one.load_failed(child, "start_failed", "bad luck")
        else:
            if event in ("loaded", "serves and dies"):
                one.loaded(child)
                world.living[child] = True
            if event in ("exited", "serves and dies"):
                world.exited(child)
        if world.ended:
            return
        world.check()
    world.stopped = True
    world.perform(one.stop(world.now))
    while world.living:  # each one leaves when it is told to, or is killed at its deadline
        stopping = [name for name, life in one.children.items() if life.state is State.STOPPING]
        assert len(stopping) == 1
        world.exited(stopping[0])
    assert one.gone
    assert one.next_deadline is None
