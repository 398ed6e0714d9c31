"""Leases, and what the loop of a stage makes of them."""

from collections import deque
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.hub.lease import Action, AskBack, Grant, Leases
from orchestrator.plan import plan
from stages.core import pipes
from stages.core.arena import Layout, SlotRef, View
from stages.core.board import Board, BoardWriter, Doing
from stages.core.config import Config, PipelineConfig, StageSpec
from stages.core.region import Region
from stages.core.tasks import EncodeText, Task
from stages.core.wire import Kind
from stages.loop import serve
from stages.stage import Stage
from tests.unit.cards import CARD, machine

KINDS: dict[str, Kind] = {
    "text-0": "text",
    "unet-0": "unet",
    "unet-1": "unet",
    "vae-0": "vae",
    "vae-1": "vae",
    "unet-9": "unet",
    "vae-9": "vae",
    "text-9": "text",
}
CORES = {stage: "0-3" for stage in ("text-0", "unet-0", "unet-1", "vae-0", "vae-1")} | {"unet-9": "4", "vae-9": "4"}
"""text-9 has cores to itself."""


# Histories: what was said, and what is to be done about it.

History = list[tuple[str, list[Action]]]
HISTORIES: dict[str, History] = {
    "who asks first gets it": [("unet-0 wants", [Grant("unet-0")])],
    "asking twice changes nothing": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-0 wants", []),
        ("vae-0 wants", [AskBack("unet-0")]),
        ("vae-0 wants", []),
        ("unet-0 is done", [Grant("vae-0")]),
        ("vae-0 is done", []),
    ],
    "the decoder borrows the cores of the U-Net for one picture": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("vae-0 wants", [AskBack("unet-0")]),
        ("unet-0 yields", [Grant("vae-0")]),
        ("vae-0 is done", [Grant("unet-0")]),
        ("unet-0 is done", []),
    ],
    "so does the text encoder": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("text-0 wants", [AskBack("unet-0")]),
        ("unet-0 yields", [Grant("text-0")]),
        ("text-0 is done", [Grant("unet-0")]),
    ],
    "the U-Net interrupts nobody": [
        ("vae-0 wants", [Grant("vae-0")]),
        ("unet-0 wants", []),
        ("vae-0 is done", [Grant("unet-0")]),
    ],
    "one U-Net takes turns with another": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-1 wants", [AskBack("unet-0")]),
        ("unet-0 yields", [Grant("unet-1"), AskBack("unet-1")]),
        ("unet-1 yields", [Grant("unet-0"), AskBack("unet-0")]),
        ("unet-0 is done", [Grant("unet-1")]),
    ],
    "of those as urgent the first to ask goes first": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-1 wants", [AskBack("unet-0")]),
        ("text-0 wants", []),
        ("vae-0 wants", []),
        ("unet-0 yields", [Grant("text-0"), AskBack("text-0")]),
        ("text-0 yields", [Grant("vae-0"), AskBack("vae-0")]),
        ("vae-0 is done", [Grant("text-0")]),
        ("text-0 is done", [Grant("unet-1"), AskBack("unet-1")]),
        ("unet-1 is done", [Grant("unet-0")]),
    ],
    "a lease may be let go unasked, and taken again": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-0 is done", []),
        ("unet-0 wants", [Grant("unet-0")]),
    ],
    "work that came while it was letting go is not forgotten": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-0 yields", [Grant("unet-0")]),
    ],
    "a holder that dies blocks nobody": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("vae-0 wants", [AskBack("unet-0")]),
        ("unet-0 dies", [Grant("vae-0")]),
        ("vae-0 is done", []),
    ],
    "one that dies waiting is not waited for": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("vae-0 wants", [AskBack("unet-0")]),
        ("vae-0 dies", []),
        ("unet-0 yields", [Grant("unet-0")]),
    ],
    "the one after a dead one is asked like any other": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-0 dies", []),
        ("unet-0 wants", [Grant("unet-0")]),
        ("vae-0 wants", [AskBack("unet-0")]),
    ],
    "other cores are another matter": [
        ("unet-0 wants", [Grant("unet-0")]),
        ("unet-9 wants", [Grant("unet-9")]),
        ("vae-9 wants", [AskBack("unet-9")]),
        ("unet-0 is done", []),
        ("unet-9 yields", [Grant("vae-9")]),
    ],
    "who shares with nobody needs no lease": [
        ("text-9 wants", []),
        ("text-9 yields", []),
        ("text-9 dies", []),
    ],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_histories(history: History) -> None:
    leases = Leases(KINDS, CORES)
    for said, expected in history:
        stage, _, what = said.partition(" ")
        done = leases.wants(stage) if what == "wants" else leases.yielded(stage, more=what == "yields")
        assert told(done) == told(expected), said


def told(actions: Iterable[Action]) -> list[tuple[type[Action], str]]:
    """To compare by: a Grant is a tuple, and equal to an AskBack of the same stage."""
    return [(type(action), action.stage) for action in actions]


# Any history. The stages do what stages.loop does; messages between them and the hub take their time.


class LeaseMachine(RuleBasedStateMachine):
    stages = st.sampled_from(sorted(CORES))

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(KINDS, CORES)
        self.work = dict.fromkeys(CORES, 0)
        """Units that the hub has sent and the stage has not done."""
        self.may_work = dict.fromkeys(CORES, False)
        self.to_stage: dict[str, deque[Action]] = {stage: deque() for stage in CORES}
        self.from_stage: dict[str, deque[int]] = {stage: deque() for stage in CORES}
        """`Yielded`s under way."""

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            self.to_stage[action.stage].append(action)

    @rule(stage=stages, units=st.integers(1, 3))
    def send_work(self, stage: str, units: int) -> None:
        self.work[stage] += units
        self.perform(self.leases.wants(stage))

    @rule(stage=stages)
    def turn(self, stage: str) -> None:
        """One turn of the stage's loop."""
        asked = False
        while self.to_stage[stage]:
            match self.to_stage[stage].popleft():
                case Grant():
                    assert not self.may_work[stage], "granted twice"
                    self.may_work[stage] = True
                case AskBack():
                    asked = self.may_work[stage]
        if not self.may_work[stage]:
            return
        if self.work[stage]:
            self.work[stage] -= 1
        if asked or not self.work[stage]:
            self.may_work[stage] = False
            self.from_stage[stage].append(1)

    @rule(stage=stages)
    def hear(self, stage: str) -> None:
        """What the stage has said arrives at the hub."""
        while self.from_stage[stage]:
            self.from_stage[stage].popleft()
            self.perform(self.leases.yielded(stage, more=self.work[stage] > 0))

    @precondition(lambda self: any(self.may_work.values()))
    @rule(data=st.data())
    def kill_a_holder(self, data: st.DataObject) -> None:
        self.kill(data.draw(st.sampled_from([stage for stage in sorted(CORES) if self.may_work[stage]])))

    @rule(stage=stages)
    def kill(self, stage: str) -> None:
        """What it has said before is heard, what was on its way to it is lost, and its work goes elsewhere."""
        self.hear(stage)
        self.work[stage] = 0
        self.may_work[stage] = False
        self.to_stage[stage].clear()
        self.perform(self.leases.yielded(stage, more=False))

    @invariant()
    def at_most_one_works_on_the_same_cores(self) -> None:
        for cores in set(CORES.values()):
            entitled = [
                stage
                for stage in CORES
                if CORES[stage] == cores
                and (self.may_work[stage] or any(isinstance(action, Grant) for action in self.to_stage[stage]))
            ]
            assert len(entitled) <= 1, entitled

    def teardown(self) -> None:
        """From here on no work comes: all that is there gets done, and within a turn a unit or so."""
        units = sum(self.work.values())
        for _ in range(2 * units + 4):
            for stage in CORES:
                self.turn(stage)
                self.hear(stage)
        assert not any(self.work.values()), f"left undone: {self.work}"
        assert not any(self.may_work.values())
        for stage in CORES:  # all leases are free again
            self.perform(self.leases.wants(stage))
            assert told(self.to_stage[stage]) == [(Grant, stage)]
            self.to_stage[stage].clear()
            self.perform(self.leases.yielded(stage, more=False))


class TestAnyHistory(LeaseMachine.TestCase):
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# What a stage does with a lease.


class FakeStage(Stage):
    """Jobs of two units each; a unit of a job of prompt `broken` raises, and leaves a forward in flight."""

    precision = "none"

    def load(self) -> None:
        self.jobs: list[int] = []
        self.broken: set[int] = set()
        self.in_flight = False

    @property
    def idle(self) -> bool:
        return not self.jobs and not self.in_flight

    def admit(self, run: pipes.Run[Task]) -> None:
        assert isinstance(run.task, EncodeText)
        self.jobs += [run.job, run.job]
        if run.task.prompts == ("broken",):
            self.broken.add(run.job)

    def drop(self, job: int) -> None:
        self.jobs = [other for other in self.jobs if other != job]

    def step(self) -> Iterator[pipes.Report]:
        self.in_flight = False
        if not self.jobs:
            return
        job = self.jobs.pop(0)
        self.working = (job,)
        if job in self.broken:
            self.in_flight = True
            raise RuntimeError("it broke")
        yield pipes.Stepped(job, 1, 1, 0, 1, 1) if job in self.jobs else pipes.Finished(job, (), 0, 1)


class BusyStage(FakeStage):
    """Says on the board what it does."""

    def admit(self, run: pipes.Run[Task]) -> None:
        self.jobs += [run.job] * 9

    def step(self) -> Iterator[pipes.Report]:
        self.board.beat(Doing.BUSY, self.jobs[0])
        yield from super().step()


class FakeLink:
    """Brings what was written down, a batch at a time; the orchestrator dies when there is no more."""

    def __init__(self, *batches: list[pipes.ToStage]) -> None:
        self.batches = deque(batches)
        self.said: list[str] = []
        self.waited: list[bool] = []

    def orphaned(self) -> bool:
        return not self.batches

    def receive(self, wait: bool) -> list[pipes.ToStage]:
        self.waited.append(wait)
        self.said.append("|")
        return self.batches.popleft()

    def send(self, message: pipes.FromStage) -> None:
        self.said.append("Fault" if isinstance(message, pipes.Fault) else type(message).__name__)

    def end_unit(self) -> None:
        pass


@pytest.fixture
def spec() -> StageSpec:
    config = Config(pipeline=PipelineConfig(share="turns"))
    return plan(config, CARD, machine(2)).stages[1]


@pytest.fixture
def stage(spec: StageSpec) -> Iterator[FakeStage]:
    layout = Layout(spec.pools)
    board = Board(3)
    region = Region.create("test", layout.nbytes)
    view = View(region.fd, layout, spec.number)
    fake = FakeStage(spec, view, BoardWriter(board.region, spec.number))
    fake.load()
    yield fake
    view.close()
    board.close()


def job(number: int, prompt: str = "a cat") -> pipes.Run[EncodeText]:
    return pipes.Run(number, EncodeText(prompt), SlotRef(number, 1))


def play(stage: Stage, *batches: list[pipes.ToStage]) -> str:
    """What the stage says; a bar for each look at what has arrived."""
    link = FakeLink(*batches)
    serve(stage, link)  # type: ignore[arg-type]
    return " ".join(link.said)


def test_a_stage_of_a_group_works_only_while_it_holds_the_lease(stage: FakeStage) -> None:
    assert stage.spec.takes_turns
    assert play(stage, [job(1)], [], [pipes.Grant()], [], []) == "| | | Stepped | Finished Yielded |"


def test_a_stage_without_a_turn_waits_for_messages_although_it_has_work(stage: FakeStage) -> None:
    link = FakeLink([job(1)], [], [pipes.Grant()], [], [])
    serve(stage, link)  # type: ignore[arg-type]
    assert link.waited == [True, True, True, False, True]


def test_a_lease_that_is_asked_back_is_let_go_before_the_next_unit_of_work(stage: FakeStage) -> None:
    said = play(stage, [job(1), pipes.Grant()], [pipes.AskBack()], [], [pipes.Grant()], [])
    assert said == "| Stepped | Yielded | | Finished Yielded |"


def test_a_lease_is_good_for_one_unit_of_work_even_if_asked_back_at_once(stage: FakeStage) -> None:
    """Or else two that ask each other back would do nothing but that."""
    both: list[pipes.ToStage] = [pipes.Grant(), pipes.AskBack()]
    assert play(stage, [job(1)], both, [], both, []) == "| | Stepped Yielded | | Finished Yielded |"


def test_a_lease_is_not_let_go_while_what_a_broken_unit_left_may_compute(stage: FakeStage) -> None:
    both: list[pipes.ToStage] = [pipes.Grant(), pipes.AskBack()]
    assert play(stage, [job(1, "broken"), job(2)], both, [], []) == "| | Fault | Stepped Yielded |"
    assert not stage.in_flight


def test_a_lease_is_let_go_once(stage: FakeStage) -> None:
    said = play(stage, [job(1), pipes.Grant()], [], [pipes.AskBack()], [pipes.AskBack()], [])
    assert said == "| Stepped | Finished Yielded | | |"


def test_who_watches_the_board_sees_that_there_is_nothing_left_to_do(spec: StageSpec) -> None:
    layout = Layout(spec.pools)
    board = Board(3)
    region = Region.create("test", layout.nbytes)
    view = View(region.fd, layout, spec.number)
    busy = BusyStage(spec, view, BoardWriter(board.region, spec.number))
    busy.load()
    play(busy, [job(1), pipes.Grant()], [])
    assert board.read(spec.number).doing is Doing.BUSY
    play(busy, [pipes.Drop(1)])
    assert board.read(spec.number).doing is Doing.IDLE
    view.close()
    board.close()


def test_a_lease_without_work_is_let_go(stage: FakeStage) -> None:
    assert play(stage, [job(1)], [pipes.Drop(1), pipes.Grant()], []) == "| | Dropped Yielded |"
    assert play(stage, [job(1)], [pipes.Drop(1), pipes.Grant(), pipes.AskBack()], []) == "| | Dropped Yielded |"
