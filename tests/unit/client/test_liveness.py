import pytest

from orchestrator.client.liveness import ASK_S, Liveness
from stages.core.errors import NoAnswer
from tests.unit.statuses import status


def liveness(ask_s: float | None = None) -> Liveness:
    return Liveness("tcp://here", 30.0, ask_s, 100.0)


def test_a_silent_server_is_asked_and_not_again_at_once() -> None:
    alive = liveness(ask_s=2.0)
    assert not alive.ask_due(101.9)
    assert alive.ask_due(102.0)
    alive.asked(102.0)
    assert not alive.ask_due(103.9)
    assert alive.ask_due(104.0)
    alive.heard(104.0)
    assert not alive.ask_due(105.9)


def test_while_it_starts_it_is_asked_more_often() -> None:
    alive = liveness()
    assert alive.ask_due(100.0 + ASK_S["starting"])
    assert not alive.is_another(status())
    assert not alive.ask_due(100.0 + ASK_S["starting"])
    assert alive.ask_due(100.0 + ASK_S["serving"])


def test_silence_counts_from_the_first_question_without_an_answer() -> None:
    alive = liveness()
    alive.check(10_000.0)  # nobody has asked anything
    for asked in (200.0, 202.0, 204.0):
        alive.asked(asked)
    alive.check(230.0)
    with pytest.raises(NoAnswer, match=r"tcp://here has been silent for 30 s"):
        alive.check(230.1)
    alive.heard(231.0)
    alive.check(10_000.0)


def test_another_process_is_another_server() -> None:
    alive = liveness()
    assert [alive.is_another(status(hub_pid=pid)) for pid in (1, 1, 2, 2)] == [False, False, True, False]
