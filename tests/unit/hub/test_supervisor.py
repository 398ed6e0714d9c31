from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hub.supervisor import Action, GiveUp, Kill, Spawn, State, Stop, Supervisor
from stages.core.errors import StartFailed

LOAD_S, STOP_S, ATTEMPTS = 100.0, 5.0, 3
STAGES = ("text", "unet", "vae")

History = list[tuple[str, tuple[object, ...], str]]
"""Events with their arguments, and the actions that must follow, in words."""


def supervisor() -> Supervisor:
    return Supervisor(STAGES, attempts=ATTEMPTS, load_s=LOAD_S, stop_s=STOP_S)


def words(actions: Sequence[Action] | None) -> str:
    said = []
    for action in actions or ():
        match action:
            case GiveUp(error):
                said.append(f"give up, exit {error.exit_status}: {error.message}")
            case Spawn(stage) | Stop(stage) | Kill(stage):
                said.append(f"{type(action).__name__.lower()} {stage}")
    return ", ".join(said)


def play(history: History) -> Supervisor:
    one = supervisor()
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


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["loaded", "load_failed", "exited", "tick", "tick", "stop"]),
        st.sampled_from(STAGES),
        st.floats(0, 60),
    ),
    max_size=40,
)


@given(EVENTS)
def test_no_stage_has_two_processes_and_none_is_spawned_after_stop(events: list[tuple[str, str, float]]) -> None:
    one = supervisor()
    living = {action.stage for action in one.start(0.0) if isinstance(action, Spawn)}
    now, stopped, going = 0.0, False, True

    def perform(actions: list[Action]) -> bool:
        for action in actions:
            if isinstance(action, GiveUp):
                return False
            if isinstance(action, Spawn):
                assert not stopped
                assert action.stage not in living
                living.add(action.stage)
            else:
                assert action.stage in living
        return True

    for event, stage, later in events:
        now += later
        if event == "tick":
            going = perform(one.tick(now))
            assert one.next_deadline is None or one.next_deadline > now
        elif event == "stop":
            stopped = True
            going = perform(one.stop(now))
        elif stage not in living:
            continue
        elif event == "exited":
            living.remove(stage)
            going = perform(one.exited(stage, DIED, now))
        elif event == "loaded":
            one.loaded(stage)
        else:
            one.load_failed(stage, "start_failed", "bad luck")
        if not going:
            return
        assert one.gone == (not living)
    stopped = True
    perform(one.stop(now))
    while living:  # each one leaves when it is told to, or is killed at its deadline
        stopping = [stage for stage, child in one.children.items() if child.state is State.STOPPING]
        assert len(stopping) == 1
        living.remove(stopping[0])
        perform(one.exited(stopping[0], "ended", now))
    assert one.gone
    assert one.next_deadline is None
