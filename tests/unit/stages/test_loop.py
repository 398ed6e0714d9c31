from collections import deque
from collections.abc import Iterator

import pytest

from stages.core import pipes
from stages.core.arena import SlotRef
from stages.core.board import Board, BoardWriter, Doing
from stages.core.errors import BadOutput, BadRequest
from stages.core.pipes import DrawPreview, Drop, Dropped, Fault, Finished, PreviewDrawn, Run, Started, Stop
from stages.core.tasks import EncodeText, Task
from stages.loop import serve
from stages.stage import OneByOne, Stage
from tests.unit.fleet import Fleet


def run(job: int, prompt: str = "a cat") -> Run[EncodeText]:
    return Run(job, EncodeText(prompt), SlotRef(job, 1))


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
        pipes.unpack_from_stage(pipes.pack_from_stage([message]))
        self.sent.append(message)

    def end_unit(self) -> None:
        self.units.append(len(self.sent))

    def said(self) -> list[tuple[str, int]]:
        """The kind of every report, and its job."""
        return [(type(message).__name__, message.job) for message in self.sent]  # type: ignore[union-attr]


class FakeText(OneByOne[EncodeText]):
    """Its prompts say what is to go wrong."""

    precision = "none"

    def load(self) -> None:
        pass

    def admit(self, run: pipes.Run[Task]) -> None:
        assert isinstance(run.task, EncodeText)
        if run.task.prompts == ("too long",):
            raise BadRequest("`prompt` has 999 tokens")
        if run.task.prompts == ("odd",):
            raise KeyError("odd")
        if run.task.prompts == ("endless",):
            raise ValueError("x" * (1 << 20))
        super().admit(run)

    def work(self, run: Run[EncodeText]) -> tuple[int, ...]:
        match run.task.prompts:
            case ("NaN",):
                raise BadOutput("the output holds NaN")
            case ("odd shape",):
                return (0.5,)  # type: ignore[return-value]
            case ("broken",):
                raise RuntimeError("it\nbroke")
            case ("interrupted",):
                raise KeyboardInterrupt
        return (run.job,)


class FakeUnet(Stage):
    """Works on up to two jobs together, for two steps; a job of prompt `broken` breaks the second one.

    Other prompts are defects of the stage: `unnamed` raises before the stage has said whom the unit is about,
    `forgotten` is never ended, `stays` cannot be dropped, `late` raises once its neighbour has ended.
    """

    precision = "none"

    def load(self) -> None:
        self.runs: list[Run[EncodeText]] = []
        self.steps: dict[int, int] = {}

    @property
    def idle(self) -> bool:
        return not self.runs

    def admit(self, run: pipes.Run[Task]) -> None:
        assert isinstance(run.task, EncodeText)
        if run.task.prompts != ("ignored",):
            self.runs.append(run)
        if run.task.prompts == ("half taken in",):
            raise KeyError("odd")

    def drop(self, job: int) -> None:
        if any(run.job == job and run.task.prompts == ("stays",) for run in self.runs):
            raise RuntimeError("it stays")
        self.runs = [run for run in self.runs if run.job != job]

    def step(self) -> Iterator[pipes.Report]:
        group = self.runs[:2]
        if any(run.task.prompts == ("unnamed",) for run in group):
            raise RuntimeError("it broke")
        self.working = tuple(run.job for run in group)
        if any(run.task.prompts == ("stays",) for run in group):
            raise RuntimeError("it broke")
        if any(run.task.prompts == ("forgotten",) for run in group):
            self.runs.clear()
            return
        for run in group:
            step = self.steps[run.job] = self.steps.get(run.job, 0) + 1
            if step == 2 and run.task.prompts == ("broken",):
                raise RuntimeError("it broke")
            yield pipes.Stepped(run.job, step, 2, 0, 1, 1)
        for run in group:
            if self.steps[run.job] == 2:
                if run.task.prompts == ("late",):
                    raise RuntimeError("it broke")
                self.drop(run.job)
                yield Finished(run.job, (), 0, 1)


class FakeVae(FakeText):
    """Draws previews of even jobs, none of odd ones, and breaks at those of jobs beyond 9."""

    def preview(self, wanted: DrawPreview) -> PreviewDrawn | None:
        if wanted.job > 99:
            return PreviewDrawn(wanted.job, 3, "no bytes")  # type: ignore[arg-type]
        if wanted.job > 9:
            raise ZeroDivisionError(f"job {wanted.job}\nbroke")
        return PreviewDrawn(wanted.job, 3, b"jpeg") if wanted.job % 2 == 0 else None


def draw(job: int) -> DrawPreview:
    return DrawPreview(job, SlotRef(job, 1), (4, 8, 8))


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board(3)
    yield board
    board.close()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
def text(fleet: Fleet, board: Board) -> FakeText:
    stage = FakeText(fleet.plan.stages[0], fleet.processes["text-0"].view, BoardWriter(board.region, 0))
    stage.load()
    return stage


@pytest.fixture
def vae(fleet: Fleet, board: Board) -> FakeVae:
    stage = FakeVae(fleet.plan.stages[2], fleet.processes["vae-0"].view, BoardWriter(board.region, 2))
    stage.load()
    return stage


@pytest.fixture
def unet(fleet: Fleet, board: Board) -> FakeUnet:
    stage = FakeUnet(fleet.plan.stages[1], fleet.processes["unet-0"].view, BoardWriter(board.region, 0))
    stage.load()
    return stage


def play(stage: Stage, *batches: list[pipes.ToStage]) -> FakeLink:
    link = FakeLink(*batches)
    serve(stage, link)  # type: ignore[arg-type]
    return link


def test_jobs_are_done_in_order_and_told_of_as_they_are(text: FakeText, board: Board) -> None:
    link = play(text, [run(1), run(2)], [run(3)], [])
    assert link.said() == [(kind, job) for job in (1, 2, 3) for kind in ("Started", "Finished")]
    for took, put in zip(link.sent[::2], link.sent[1::2], strict=True):
        assert isinstance(took, Started)
        assert isinstance(put, Finished)
        assert put.shape == (put.job,)
        assert took.began_ns == put.began_ns <= put.ended_ns
    row = board.read(0)
    assert row.doing is Doing.IDLE
    assert row.busy_ns == sum(put.ended_ns - put.began_ns for put in link.sent if isinstance(put, Finished))


def test_the_loop_waits_for_messages_only_when_it_has_nothing_to_do(text: FakeText) -> None:
    link = play(text, [], [run(1), run(2), run(3)], [], [], [])
    assert link.waited == [True, True, False, False, True]


def test_who_watches_the_board_sees_the_job_at_work(text: FakeText, board: Board) -> None:
    text.admit(run(5))
    reports = text.step()
    took = next(reports)
    assert isinstance(took, Started)
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
    assert link.said()[1:] == [("Started", 1), ("Finished", 1), ("Started", 3), ("Finished", 3)]


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ("NaN", "bad_output", "the output holds NaN"),
        ("broken", "stage_fault", "RuntimeError: it broke"),
        ("odd shape", "stage_fault", "ValidationError: Expected `int`, got `float` - at `$[0][2][0]`"),
    ],
)
def test_a_job_that_breaks_costs_itself_alone(
    prompt: str, code: str, message: str, text: FakeText, board: Board
) -> None:
    link = play(text, [run(1, prompt), run(2)], [])
    assert link.sent[1] == Fault(1, code, message)
    assert link.said() == [("Started", 1), ("Fault", 1), ("Started", 2), ("Finished", 2)]
    assert text.idle
    link = play(text, [run(3, prompt)])
    assert link.said() == [("Started", 3), ("Fault", 3)]
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
        ("Finished", 3),
        ("Finished", 4),
    ]
    assert unet.idle


# Whom an exception costs.


def test_a_job_that_had_ended_when_its_neighbour_broke_is_not_answered_again(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2, "late")], [], [])
    assert link.said()[4:] == [("Finished", 1), ("Fault", 2)]
    assert unet.idle


def test_nobody_of_the_last_unit_pays_for_what_breaks_before_the_next_has_begun(unet: FakeUnet) -> None:
    """Jobs 1 and 2 were in the last forward; whose fault it is now nobody says, so the process ends."""
    link = FakeLink([run(1), run(2)], [run(3), run(4), Drop(1), Drop(2)], [run(5, "unnamed"), Drop(3)], [], [])
    with pytest.raises(RuntimeError, match="it broke"):
        serve(unet, link)  # type: ignore[arg-type]
    assert [kind for kind, _ in link.said()] == ["Stepped"] * 2 + ["Dropped"] * 2 + ["Stepped"] * 2 + ["Dropped"]
    assert len(link.batches) == 2, "at once: there is nothing that it could do differently the next time"


def test_a_job_that_cannot_even_be_dropped_is_answered_once(unet: FakeUnet) -> None:
    link = FakeLink([run(1, "stays")], [], [], [], [])
    with pytest.raises(RuntimeError, match="it broke"):
        serve(unet, link)  # type: ignore[arg-type]
    assert link.said() == [("Fault", 1)]


def test_what_breaks_unnamed_is_about_the_only_job_there_is(unet: FakeUnet) -> None:
    link = play(unet, [run(1, "unnamed")], [run(2)], [], [])
    assert link.said() == [("Fault", 1), ("Stepped", 2), ("Stepped", 2), ("Finished", 2)]


def test_what_breaks_for_jobs_that_have_gone_costs_nobody_until_nothing_else_is_done(unet: FakeUnet) -> None:
    unet.admit(run(8, "stays"))  # as if in a forward that goes on after the drop
    link = FakeLink([run(1)], [], [], [], [])
    with pytest.raises(RuntimeError, match="it broke"):
        serve(unet, link)  # type: ignore[arg-type]
    assert link.said() == [("Fault", 1)], "its forward was shared"
    assert len(link.batches) == 1, "a stage that can do nothing else is given up, but not at the first time"


def test_a_job_that_the_stage_forgets_is_answered(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2, "forgotten")], [run(3, "ignored")], [run(4)], [], [])
    assert link.said() == [("Fault", 1), ("Fault", 2), ("Fault", 3), ("Stepped", 4), ("Stepped", 4), ("Finished", 4)]


def test_a_job_that_was_half_taken_in_is_forgotten(unet: FakeUnet) -> None:
    link = play(unet, [run(1, "half taken in")], [run(2)], [], [])
    assert link.said() == [("Fault", 1), ("Stepped", 2), ("Stepped", 2), ("Finished", 2)]


def test_a_drop_that_raises_is_answered_and_the_stage_goes_on(unet: FakeUnet, text: FakeText) -> None:
    unet.admit(run(9, "stays"))
    link = FakeLink([Drop(9), run(1), Drop(7), Stop()])
    serve(unet, link)  # type: ignore[arg-type]
    assert link.sent == [Fault(9, "stage_fault", "RuntimeError: it stays"), Dropped(7)]


def test_a_message_of_an_exception_is_cut_before_the_pipe_is_full(text: FakeText) -> None:
    [fault] = play(text, [run(1, "endless")]).sent
    assert isinstance(fault, Fault)
    assert 500 < len(fault.message) <= 1000


# Previews.


def test_every_preview_asked_for_is_answered_once(vae: FakeVae, caplog: pytest.LogCaptureFixture) -> None:
    link = play(vae, [draw(2), draw(3), draw(11), run(1), draw(12), draw(100)], [draw(4)], [])
    nothing = [PreviewDrawn(job, 0, b"") for job in (3, 11, 12, 100)]
    assert link.sent[:5] == [PreviewDrawn(2, 3, b"jpeg"), *nothing]
    assert link.said()[5:] == [("Started", 1), ("Finished", 1), ("PreviewDrawn", 4)]
    [line] = [record.getMessage() for record in caplog.records]
    assert "ZeroDivisionError('job 11\\nbroke')" in line, "a line, and of the first one only"


def test_a_stage_that_draws_no_previews_answers(text: FakeText) -> None:
    assert play(text, [draw(2)]).sent == [PreviewDrawn(2, 0, b"")]


# Leaving.


def test_a_dropped_job_is_not_done_and_the_drop_is_answered(text: FakeText) -> None:
    link = play(text, [run(1), run(2), run(3)], [Drop(2)], [], [])
    assert link.said() == [("Started", 1), ("Finished", 1), ("Dropped", 2), ("Started", 3), ("Finished", 3)]


def test_a_job_can_be_dropped_between_its_steps(unet: FakeUnet) -> None:
    link = play(unet, [run(1), run(2)], [Drop(1)])
    assert link.said() == [("Stepped", 1), ("Stepped", 2), ("Dropped", 1), ("Stepped", 2), ("Finished", 2)]


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
    assert link.said() == [("Started", 1)]
