"""When a stage's messages go, by a clock of the test's own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import pipes
from stages.core.outbox import Outbox

PUT = pipes.Finished(1, (4,), 0, 1)


def stepped(job: int = 1) -> pipes.Stepped:
    return pipes.Stepped(job, 1, 2, 0, 1, 1)


class Stage:
    """Says things and lets time pass, as a stage's loop and its courier do."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.now = 100.0
        self.sent: list[tuple[float, int]] = []
        """When messages were sent, and how many."""

    def say(self, *messages: pipes.FromStage) -> None:
        for message in messages:
            self.outbox.add(message, self.now)
            self.send_due()

    def end_unit(self) -> None:
        self.outbox.end_unit(self.now)
        self.send_due()

    def work(self, seconds: float) -> None:
        end = self.now + seconds
        while self.outbox.due_s <= end:
            self.now = self.outbox.due_s
            self.send_due()
        self.now = end

    def send_due(self) -> None:
        if self.outbox.due_s <= self.now:
            self.sent.append((self.now, len(self.outbox.take(self.now))))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_news_of_all_jobs_of_a_long_forward_go_at_its_end_and_together(stage: Stage) -> None:
    for _ in range(3):
        stage.work(1.2)
        stage.say(stepped(1), stepped(2), stepped(3))
        stage.end_unit()
    assert stage.sent == [(pytest.approx(100 + 1.2 * number), 3) for number in (1, 2, 3)]


def test_news_of_short_steps_come_often_enough_to_be_watched_and_not_more_often(stage: Stage) -> None:
    for _ in range(1000):
        stage.work(0.001)
        stage.say(stepped())
        stage.end_unit()
    assert 15 <= len(stage.sent) <= 50
    assert sum(count for _, count in stage.sent) >= 900


def test_news_do_not_wait_for_the_end_of_what_takes_long(stage: Stage) -> None:
    stage.say(PUT, stepped())
    stage.end_unit()
    stage.work(60.0)
    stage.say(stepped(), stepped())  # in the middle of a unit
    stage.work(60.0)
    assert [count for _, count in stage.sent] == [1, 1, 2]
    assert stage.sent[1][0] < 100.1
    assert stage.sent[2][0] < 160.1


@pytest.mark.parametrize(
    "message", [PUT, pipes.Started(1, 0), pipes.Dropped(1), pipes.Fault(1, "x", "y"), pipes.Yielded()]
)
def test_all_else_goes_at_once_and_takes_along_what_waits(message: pipes.FromStage, stage: Stage) -> None:
    stage.say(message, stepped(1), stepped(2), message)
    assert stage.sent == [(100.0, 1), (100.0, 3)]


def test_nothing_is_due_while_nothing_waits(stage: Stage) -> None:
    stage.end_unit()
    assert stage.outbox.due_s == math.inf
    assert stage.outbox.take(100.0) == []
    stage.say(stepped())
    stage.end_unit()
    assert stage.sent == [(100.0, 1)], "an empty sending is none"
    assert stage.outbox.due_s == math.inf


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.01, 0.05, 1.0]), st.integers(1, 3), st.booleans())))
def test_everything_goes_once_in_order_and_soon(units: list[tuple[float, int, bool]]) -> None:
    """Units of work of so many seconds and jobs, some of which end in something else than news."""
    stage = Stage()
    said: list[float] = []
    for seconds, jobs, ends in units:
        stage.work(seconds)
        said += [stage.now] * (jobs + ends)
        stage.say(*(stepped(job) for job in range(jobs)), *([pipes.Dropped(jobs)] if ends else []))
        stage.end_unit()
    stage.work(0.1)
    sent = [at for at, count in stage.sent for _ in range(count)]
    assert len(sent) == len(said)
    assert all(at <= arrived <= at + 0.1 for at, arrived in zip(said, sent, strict=True))
