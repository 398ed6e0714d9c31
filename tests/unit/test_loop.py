from collections import deque
from collections.abc import Iterator

import pytest

from stages.core import pipes
from stages.core.arena import SlotRef
from stages.core.board import Beacon, Board, Doing
from stages.core.errors import BadOutput, BadRequest
from stages.core.pipes import Drop, Dropped, Fault, Put, RunText, Stop, Took
from stages.loop import serve
from stages.stage import OneByOne, Stage
from tests.unit.fleet import Fleet


def run(job: int, prompt: str = "a cat") -> RunText:
    return RunText(job, SlotRef(job, 1), (prompt,))


class FakeLink:
    """Brings what was written down, a batch at a time; the orchestrator dies when there is no more."""

    def __init__(self, *batches: list[pipes.ToStage]) -> None:
        self.batches = deque(batches)
        self.sent: list[pipes.FromStage] = []
        self.waited: list[bool] = []
        self.units: list[int] = []
        """How many messages had been sent when a unit of work ended."""

    def orphaned(self) -> bool:
        return not self.batches

    def receive(self, wait: bool) -> list[pipes.ToStage]:
        self.waited.append(wait)
        return self.batches.popleft()

    def send(self, message: pipes.FromStage) -> None:
        self.sent.append(message)

    def end_unit(self) -> None:
        self.units.append(len(self.sent))

    def said(self) -> list[tuple[str, int]]:
        """The kind of every report, and its job."""
        return [(type(message).__name__, message.job) for message in self.sent]  # type: ignore[union-attr]


class FakeText(OneByOne[RunText]):
    """Its prompts say what is to go wrong."""

    precision = "none"

    def load(self) -> None:
        pass

    def admit(self, run: pipes.Run) -> None:
        assert isinstance(run, RunText)
        if run.prompts == ("too long",):
            raise BadRequest("`prompt` has 999 tokens")
        if run.prompts == ("odd",):
            raise KeyError("odd")
        super().admit(run)

    def work(self, run: RunText) -> tuple[int, ...]:
        match run.prompts:
            case ("NaN",):
                raise BadOutput("the output holds NaN")
            case ("broken",):
                raise RuntimeError("it\nbroke")
            case ("interrupted",):
                raise KeyboardInterrupt
        return (run.job,)


class FakeUnet(Stage):
    """Works on up to two jobs together, for two steps; a job of prompt `broken` breaks the second one."""

    precision = "none"

    def load(self) -> None:
        self.runs: list[RunText] = []
        self.steps: dict[int, int] = {}

    @property
    def idle(self) -> bool:
        return not self.runs

    def admit(self, run: pipes.Run) -> None:
        assert isinstance(run, RunText)
        self.runs.append(run)

    def drop(self, job: int) -> None:
        self.runs = [run for run in self.runs if run.job != job]

    def step(self) -> Iterator[pipes.Report]:
        group = self.runs[:2]
        self.working = tuple(run.job for run in group)
        for run in group:
            step = self.steps[run.job] = self.steps.get(run.job, 0) + 1
            if step == 2 and run.prompts == ("broken",):
                raise RuntimeError("it broke")
            yield pipes.Stepped(run.job, step, 2, 0, 1, 1)
        for run in group:
            if self.steps[run.job] == 2:
                self.drop(run.job)
                yield Put(run.job, run.output, (), 0, 1)


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(1)
    yield board
    board.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
def text(fleet: Fleet, board: Board) -> FakeText:
    stage = FakeText(fleet.plan.stages[0], fleet.processes["text-0"].view, Beacon(board.region, 0))
    stage.load()
    return stage


@pytest.fixture
def unet(fleet: Fleet, board: Board) -> FakeUnet:
    stage = FakeUnet(fleet.plan.stages[1], fleet.processes["unet-0"].view, Beacon(board.region, 0))
    stage.load()
    return stage


def play(stage: Stage, *batches: list[pipes.ToStage]) -> FakeLink:
    link = FakeLink(*batches)
    serve(stage, link)  # type: ignore[arg-type]
    return link


def test_jobs_are_done_in_order_and_told_of_as_they_are(text: FakeText, board: Board) -> None:
    link = play(text, [run(1), run(2)], [run(3)], [])
    assert link.said() == [(kind, job) for job in (1, 2, 3) for kind in ("Took", "Put")]
    for took, put in zip(link.sent[::2], link.sent[1::2], strict=True):
        assert isinstance(took, Took)
        assert isinstance(put, Put)
        assert (put.output, put.shape) == (SlotRef(put.job, 1), (put.job,))
        assert took.began_ns == put.began_ns <= put.ended_ns
    row = board.read(0)
    assert row.doing is Doing.IDLE
    assert row.busy_ns == sum(put.ended_ns - put.began_ns for put in link.sent if isinstance(put, Put))


def test_the_loop_waits_for_messages_only_when_it_has_nothing_to_do(text: FakeText) -> None:
    link = play(text, [], [run(1), run(2), run(3)], [], [], [])
    assert link.waited == [True, True, False, False, True]


def test_who_watches_the_board_sees_the_job_at_work(text: FakeText, board: Board) -> None:
    text.admit(run(5))
    reports = text.step()
    took = next(reports)
    assert isinstance(took, Took)
    assert took.job == 5
    row = board.read(0)
    assert (row.doing, row.job, row.step, row.steps) == (Doing.BUSY, 5, 0, 1)
    list(reports)
    assert board.read(0).doing is Doing.IDLE


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [("too long", "bad_request", "`prompt` has 999 tokens"), ("odd", "stage_fault", "KeyError: 'odd'")],
)
def test_a_job_that_cannot_be_taken_in_costs_itself_alone(prompt: str, code: str, message: str, text: FakeText) -> None:
    link = play(text, [run(1), run(2, prompt), run(3)], [], [])
    assert link.sent[0] == Fault(2, code, message)
    assert link.said()[1:] == [("Took", 1), ("Put", 1), ("Took", 3), ("Put", 3)]


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [("NaN", "bad_output", "the output holds NaN"), ("broken", "stage_fault", "RuntimeError: it broke")],
)
def test_a_job_that_breaks_costs_itself_alone(
    prompt: str, code: str, message: str, text: FakeText, board: Board
) -> None:
    link = play(text, [run(1, prompt), run(2)], [])
    assert link.sent[1] == Fault(1, code, message)
    assert link.said() == [("Took", 1), ("Fault", 1), ("Took", 2), ("Put", 2)]
    assert text.idle
    link = play(text, [run(3, prompt)])
    assert link.said() == [("Took", 3), ("Fault", 3)]
    assert board.read(0).doing is Doing.IDLE


def test_the_link_is_told_when_all_news_of_a_unit_of_work_are_said(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2, "broken"), run(3)], [], [], [])
    assert link.said()[:5] == [("Stepped", 1), ("Stepped", 2), ("Stepped", 1), ("Fault", 1), ("Fault", 2)]
    assert link.units == [2, 5, 6, 8]


def test_a_step_that_breaks_costs_all_jobs_in_it_and_no_others(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2, "broken"), run(3), run(4)], [], [], [])
    assert link.said() == [
        ("Stepped", 1),
        ("Stepped", 2),
        ("Stepped", 1),
        ("Fault", 1),
        ("Fault", 2),
        ("Stepped", 3),
        ("Stepped", 4),
        ("Stepped", 3),
        ("Stepped", 4),
        ("Put", 3),
        ("Put", 4),
    ]
    assert unet.idle


def test_a_dropped_job_is_not_done_and_the_drop_is_answered(text: FakeText) -> None:
    link = play(text, [run(1), run(2), run(3)], [Drop(2)], [], [])
    assert link.said() == [("Took", 1), ("Put", 1), ("Dropped", 2), ("Took", 3), ("Put", 3)]


def test_a_job_can_be_dropped_between_its_steps(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2)], [Drop(1)])
    assert link.said() == [("Stepped", 1), ("Stepped", 2), ("Dropped", 1), ("Stepped", 2), ("Put", 2)]


def test_a_drop_is_answered_although_the_job_is_not_there(text: FakeText) -> None:
    assert play(text, [Drop(9)]).sent == [Dropped(9)]


def test_stop_leaves_at_once(text: FakeText) -> None:
    link = play(text, [run(1), Stop(), run(2)], [run(3)])
    assert link.sent == []
    assert link.batches == deque([[run(3)]])


def test_a_stage_whose_orchestrator_has_died_leaves(text: FakeText) -> None:
    text.admit(run(1))
    link = play(text)
    assert (link.sent, link.waited) == ([], [])


def test_an_interrupt_is_no_fault_of_a_job(text: FakeText) -> None:
    link = FakeLink([run(1, "interrupted")], [run(2)])
    with pytest.raises(KeyboardInterrupt):
        serve(text, link)  # type: ignore[arg-type]
    assert link.said() == [("Took", 1)]
