"""A line beside one that is looked at job by job."""

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.routing.jobs import Job, Prompt
from orchestrator.routing.line import RERANK_NS, Line, Pending
from orchestrator.routing.request import resolve
from stages.core import wire
from stages.core.order import Rank, SchedulingKey
from tests.unit.cards import CARD

PROMPT = Prompt(b"client", wire.Submit(id="a", prompt="a cat"), {}, 0)
[REQUEST] = resolve(wire.Submit(id="a", prompt="a"), CARD, (CARD.native,), 0)


def job(number: int, deadline: float | None = None, priority: int = 0) -> Job:
    return Job(number, PROMPT, 0, REQUEST, 1, 1, 0, SchedulingKey(0.0, priority, deadline))


@dataclass
class Ranks:
    """Ranks and work that the test decides, and how often they were asked for."""

    figures: dict[int, tuple[float, float]] = field(default_factory=dict)
    asked: int = 0

    def __call__(self, job: Job, now_ns: int) -> tuple[Rank, float]:
        self.asked += 1
        rank, left = self.figures[job.number]
        return (rank, job.number), left


RANK = st.integers(0, 5).map(float)
WORK = st.integers(1, 9).map(float)
DEADLINE = st.none() | st.integers(0, 60).map(float)


@given(
    begun=st.lists(st.tuples(RANK, WORK, DEADLINE, st.integers(-1, 1)), max_size=6),
    waiting=st.lists(st.tuples(RANK, WORK, DEADLINE, st.integers(-1, 1)), max_size=12),
    leave=st.sets(st.integers(0, 20)),
    rank=RANK,
    priority=st.integers(-1, 1),
)
def test_a_line_answers_as_a_look_at_every_job_would(
    begun: list[tuple[float, float, float | None, int]],
    waiting: list[tuple[float, float, float | None, int]],
    leave: set[int],
    rank: float,
    priority: int,
) -> None:
    ranks = Ranks({n: (r, w) for n, (r, w, _, _) in enumerate([*begun, *waiting])})
    jobs = [job(n, deadline, priority) for n, (_, _, deadline, priority) in enumerate([*begun, *waiting])]
    lines = Pending(Line(ranks), Line(ranks, jobs[: len(begun)]))
    for each in jobs[len(begun) :]:
        lines.waiting.add(each, 0)
    lines.waiting.remove(each for each in jobs[len(begun) :] if each.number in leave)
    lines.waiting.remove(jobs[: len(begun)])  # they are not there
    left = [each for each in jobs if each.number < len(begun) or each.number not in leave]

    expected = sorted(left, key=lambda each: ranks(each, 0)[0])
    mine = (rank, math.inf)
    before = [each for each in expected if ranks(each, 0)[0] < mine]
    assert [*lines.waiting] == [each for each in expected if each.number >= len(begun)]
    assert lines.waiting.first is next((each for each in expected if each.number >= len(begun)), None)
    assert len(lines.waiting) + lines.begun.before(mine) == len(left) - len(begun) + len(
        [each for each in before if each.number < len(begun)]
    )
    assert lines.work_before(mine) == sum(ranks(each, 0)[1] for each in before)
    assert lines.waiting.least_work() == min((ranks(each, 0)[1] for each in lines.waiting), default=None)
    promised = []
    done = 0.0
    for each in expected:
        own = ranks(each, 0)[1]
        if each not in before and each.scheduling_key.deadline is not None and each.scheduling_key.priority >= priority:
            promised.append((done, own, each.scheduling_key.deadline))
        done += own
    assert [tuple(row) for row in zip(*lines.after(mine, priority), strict=True)] == promised
    for each in left:
        assert lines.rank_of(each) == ranks(each, 0)[0]
    late = {each.number for each in lines.waiting.late(30.0)}
    assert late == {
        each.number
        for each in lines.waiting
        if each.scheduling_key.deadline is not None and 30.0 + ranks(each, 0)[1] > each.scheduling_key.deadline
    }


def test_ranks_are_believed_for_a_while_that_grows_with_the_line() -> None:
    ranks = Ranks({n: (float(n), 1.0) for n in range(100)})
    line = Line(ranks, [job(n) for n in range(100)])
    ranks.figures[99] = (-1.0, 2.0)
    asked = ranks.asked
    line.refresh(100 * RERANK_NS - 1)
    assert (ranks.asked, line.first) == (asked, next(iter(line)))
    line.refresh(100 * RERANK_NS)
    assert ranks.asked == asked + 100
    assert line.first is not None
    assert line.first.number == 99
    assert line.work_before((0.0, 0)) == 2.0
