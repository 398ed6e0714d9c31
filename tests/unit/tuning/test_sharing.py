import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tuning.clockwork import Clockwork
from orchestrator.tuning.sharing import Sharing, Work

FRONT, BACK = frozenset({0, 1}), frozenset({2, 3})


def ends(sharing: Sharing, *works: tuple[str, frozenset[int] | None, float, float]) -> dict[str, float]:
    """When each piece of work is done, all begun at once."""
    clock = Clockwork(sharing)
    found: dict[str, float] = {}
    for process, cores, seconds, asks in works:

        def done(process: str = process) -> None:
            found[process] = clock.now

        clock.begin(Work(process, cores, seconds, asks, done, threads=math.ceil(asks)))
    clock.run()
    return found


def test_alone_work_takes_as_long_as_it_does() -> None:
    assert ends(Sharing({FRONT}), ("unet", FRONT, 3.0, 2.0)) == {"unet": pytest.approx(3.0)}


def test_two_that_want_all_cores_take_turns_and_the_longer_one_has_them_alone_in_the_end() -> None:
    found = ends(Sharing({FRONT}), ("unet", FRONT, 3.0, 2.0), ("vae", FRONT, 1.0, 2.0))
    assert found == {"vae": pytest.approx(2.0), "unet": pytest.approx(4.0)}


def test_work_that_leaves_room_disturbs_nobody() -> None:
    found = ends(Sharing({FRONT}), ("unet", FRONT, 3.0, 1.0), ("vae", FRONT, 1.0, 1.0))
    assert found == {"vae": pytest.approx(1.0), "unet": pytest.approx(3.0)}


def test_sets_of_cores_do_not_disturb_each_other() -> None:
    found = ends(Sharing({FRONT, BACK}), ("unet", FRONT, 3.0, 2.0), ("vae", BACK, 1.0, 2.0))
    assert found == {"vae": pytest.approx(1.0), "unet": pytest.approx(3.0)}


def test_interference_is_paid_only_while_processes_compete() -> None:
    found = ends(Sharing({FRONT}, interference=0.5), ("unet", FRONT, 3.0, 2.0), ("vae", FRONT, 1.0, 2.0))
    assert found == {"vae": pytest.approx(3.0), "unet": pytest.approx(5.0)}


def test_work_of_one_thread_waits_for_no_other_thread() -> None:
    found = ends(Sharing({FRONT}, interference=0.5), ("unet", FRONT, 2.0, 1.0), ("vae", FRONT, 1.0, 2.0))
    assert found == {"vae": pytest.approx(2.25), "unet": pytest.approx(2.75)}


def test_what_runs_anywhere_runs_where_there_is_room() -> None:
    found = ends(Sharing({FRONT, BACK}), ("unet", FRONT, 3.0, 2.0), ("hub", None, 1.0, 1.0))
    assert found == {"hub": pytest.approx(1.0), "unet": pytest.approx(3.0)}


def test_a_quota_slows_all_alike() -> None:
    found = ends(Sharing({FRONT, BACK}, quota=2.0), ("unet", FRONT, 3.0, 2.0), ("vae", BACK, 3.0, 2.0))
    assert found == {"vae": pytest.approx(6.0), "unet": pytest.approx(6.0)}


def test_one_stream_alone_goes_faster_than_among_others() -> None:
    clock = Clockwork(Sharing({FRONT}))
    finished: list[float] = []
    for seconds in (1.0, 2.0):
        clock.begin(Work("unet", FRONT, seconds, 1.0, lambda: finished.append(clock.now), concurrency=(2, 1.25)))
    clock.run()
    assert finished == [pytest.approx(1.0), pytest.approx(1.8)]


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.1, 4), st.booleans()), min_size=1, max_size=6))
def test_no_core_works_twice(works: list[tuple[float, float, bool]]) -> None:
    sharing = Sharing({FRONT, BACK})
    named = [
        (f"{n}", FRONT if front else BACK, seconds, min(asks, 2.0)) for n, (seconds, asks, front) in enumerate(works)
    ]
    end = max(ends(sharing, *named).values())
    assert sum(sharing.core_s.values()) <= 4 * end + 1e-6
    assert sum(sharing.core_s.values()) == pytest.approx(sum(seconds * asks for _, _, seconds, asks in named))
