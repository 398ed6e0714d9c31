"""Who has the next forward, and who shares it."""

from dataclasses import dataclass
from typing import NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import pipes
from stages.core.arena import SlotRef
from stages.core.batching import Batcher, pack, worth_compiling
from stages.core.config import Config, ModelConfig, PipelineConfig, StageConfig
from stages.core.costs import Cost
from stages.core.model import TOKENS
from stages.core.order import Order, SchedulingKey
from stages.core.tasks import Denoise, Task
from stages.core.wire import Kind
from tests.unit.cards import CARD
from tests.unit.fleet import TEXT, UNET, Fleet

SMALL, LARGE = (64, 64), (128, 64)
SLOT = SlotRef(0, 0)
FIRST_COME = SchedulingKey(0.0)


class Job(NamedTuple):
    number: int
    rows: int
    size: int = 64


def packed(jobs: list[Job], max_rows: int) -> list[Job]:
    return pack(
        jobs, max_rows, lambda one, other: one.size == other.size, lambda group, rows: worth_compiling(rows, max_rows)
    )


@pytest.mark.parametrize(
    ("rows", "max_rows", "together"),
    [
        ([], 4, []),
        ([2], 2, [0]),
        ([2, 2], 2, [0]),
        ([2, 2, 2], 4, [0, 1]),
        ([2, 2, 2], 8, [0, 1]),  # six rows are not worth it
        ([2, 2, 2], 6, [0, 1, 2]),  # unless they are the most there may be
        ([2, 1, 1, 2], 4, [0, 1, 2]),
        ([1, 2, 1], 4, [0, 1, 2]),
        ([1, 2], 4, [0]),
        ([2, 4, 2], 4, [0, 2]),
    ],
)
def test_the_first_takes_with_it_who_fits(rows: list[int], max_rows: int, together: list[int]) -> None:
    jobs = [Job(number, count) for number, count in enumerate(rows)]
    assert [job.number for job in packed(jobs, max_rows)] == together


def test_only_the_same_size_shares() -> None:
    jobs = [Job(0, 2, 64), Job(1, 2, 128), Job(2, 2, 64)]
    assert [job.number for job in packed(jobs, 4)] == [0, 2]


@given(st.lists(st.tuples(st.integers(1, 2), st.sampled_from([64, 128])), min_size=1), st.integers(2, 64))
def test_the_first_always_goes_in_order_and_within_bounds(jobs: list[tuple[int, int]], max_rows: int) -> None:
    ranked = [Job(number, rows, size) for number, (rows, size) in enumerate(jobs)]
    group = packed(ranked, max_rows)
    assert group[0] == ranked[0]
    assert group == sorted(group)
    assert {job.size for job in group} == {ranked[0].size}
    rows = sum(job.rows for job in group)
    assert rows <= max_rows
    assert len(group) == 1 or worth_compiling(rows, max_rows)


# Who goes first.


@dataclass
class Inside:
    """A job in the U-Net."""

    run: pipes.Run[Denoise]
    step: int = 0
    in_flight: bool = False

    @property
    def rows(self) -> int:
        return CARD.rows(self.run.task.guidance_scale)

    @property
    def rows_left(self) -> int:
        return self.rows * (self.run.task.steps - self.step)


def inside(
    number: int,
    steps: int,
    size: tuple[int, int] = SMALL,
    *,
    guidance: float = 1.0,
    scheduling_key: SchedulingKey = FIRST_COME,
    tokens: int = TOKENS,
) -> Inside:
    shape = (CARD.rows(guidance), tokens, CARD.embed_dim)
    width, height = size
    task = Denoise(width=width, height=height, steps=steps, guidance_scale=guidance, seed=0)
    return Inside(pipes.Run(number, task, SLOT, (pipes.Input(SLOT, shape),), ("decode",), scheduling_key))


def curves(small: float, large: float, decoded: tuple[float, float] = (0.0, 0.0)) -> tuple[Cost, ...]:
    """Seconds of a row, and of a decoding, of the two sizes."""
    found = [Cost("encode_text", 0, 0.0)]
    for (width, height), row, picture in zip((SMALL, LARGE), (small, large), decoded, strict=True):
        found += [Cost("denoise", width * height, row), Cost("decode", width * height, picture)]
    return tuple(found)


def turns(batcher: Batcher[Inside], jobs: list[Inside], now: float = 0.0) -> list[int]:
    """The jobs in the order in which they have a forward, each to itself."""
    waiting, found = list(jobs), []
    while group := batcher.choose(waiting, 1, lambda group, rows: True, now):
        [first] = group
        waiting.remove(first)
        found.append(first.run.job)
    return found


@pytest.mark.parametrize(
    ("costs", "first"),
    [
        (curves(1.0, 1.0), 2),
        (curves(1.0, 2.0), 1),  # five rows against three that take twice as long
        (curves(2.0, 1.0), 2),
        (curves(1.0, 1.5), 2),
        (curves(1.0, 1.5, (3.0, 4.0)), 1),  # the pictures have to be decoded, too
        ((), 1),  # nothing is known: by the pixels
    ],
)
def test_the_least_work_is_told_by_the_costs_of_each_size(costs: tuple[Cost, ...], first: int) -> None:
    batcher: Batcher[Inside] = Batcher("shortest")
    batcher.learn(costs)
    jobs = [inside(1, 5, SMALL), inside(2, 3, LARGE)]
    assert turns(batcher, jobs) == turns(batcher, jobs[::-1]) == [first, 3 - first]


def test_the_newest_costs_count_alone() -> None:
    batcher: Batcher[Inside] = Batcher("shortest")
    jobs = [inside(1, 5, SMALL), inside(2, 3, LARGE)]
    batcher.learn(curves(1.0, 100.0))
    assert turns(batcher, jobs) == [1, 2]
    batcher.learn(curves(1.0, 1.0))
    assert turns(batcher, jobs) == [2, 1]


def test_a_deadline_is_feasible_by_the_costs_of_its_size() -> None:
    batcher: Batcher[Inside] = Batcher("deadline")
    jobs = [
        inside(1, 5, SMALL, scheduling_key=SchedulingKey(0.0, 0, 20.0)),
        inside(2, 5, LARGE, scheduling_key=SchedulingKey(0.0, 0, 10.0)),
    ]
    batcher.learn(curves(1.0, 1.0))
    assert turns(batcher, jobs) == [2, 1]
    batcher.learn(curves(1.0, 3.0))
    assert turns(batcher, jobs) == [1, 2], "the earlier deadline is missed anyway"


def test_of_equal_ones_the_lower_number_goes_first_as_in_the_router() -> None:
    jobs = [inside(number, 2) for number in (3, 1, 2)]
    for order in ("shortest", "deadline", "fair", "arrival"):
        assert turns(Batcher(order), jobs) == [1, 2, 3]  # type: ignore[arg-type]


def test_what_is_in_flight_has_no_second_forward() -> None:
    batcher: Batcher[Inside] = Batcher("arrival")
    jobs = [inside(number, 2) for number in (1, 2, 3)]
    jobs[0].in_flight = True
    assert batcher.choose(jobs, 8, lambda group, rows: True, 0.0) == jobs[1:]


def test_lower_ranked_ones_of_the_same_shape_fill_the_forward() -> None:
    batcher: Batcher[Inside] = Batcher("shortest")
    jobs = [inside(1, 9), inside(2, 1), inside(3, 2, LARGE), inside(4, 3, tokens=2 * TOKENS), inside(5, 8)]
    assert [job.run.job for job in batcher.choose(jobs, 8, lambda group, rows: True, 0.0)] == [2, 5, 1]
    assert [job.run.job for job in batcher.choose(jobs, 2, lambda group, rows: True, 0.0)] == [2, 5]


# The router and the U-Net agree.

PACES: dict[tuple[int, int], dict[Kind, int]] = {
    SMALL: {"text": 10**9, "unet": 4 * 10**9, "vae": 5 * 10**9},
    LARGE: {"text": 10**9, "unet": 22 * 10**9, "vae": 31 * 10**9},
}
"""Nanoseconds of an encoding, of a step of two rows, of a decoding: not in the ratio of the pixels."""

SUBMITS = st.lists(
    st.tuples(
        st.integers(1, 40), st.sampled_from([SMALL, LARGE]), st.sampled_from([1.0, 7.5]), st.none() | st.floats(50, 999)
    ),
    min_size=2,
    max_size=10,
)


class Watched(Fleet):
    """A fleet whose U-Net ranks what it holds as the engine does, each time that it is sent a job."""

    def __init__(self, order: Order) -> None:
        sizes = tuple(f"{width}x{height}" for width, height in (SMALL, LARGE))
        self.batcher: Batcher[Inside] = Batcher(order)
        self.overtaken = 0
        super().__init__(
            Config(
                model=ModelConfig(sizes=sizes), pipeline=PipelineConfig(order=order), stage=(StageConfig(kind="unet"),)
            )
        )

    def _receive(self, stage: str, run: pipes.Run[Task]) -> None:
        super()._receive(stage, run)
        if isinstance(run.task, Denoise):
            sent = pipes.unpack_to_stage(pipes.pack_to_stage(run))
            assert isinstance(sent, pipes.Run)
            self.batcher.learn(sent.costs)
            held = [cast("pipes.Run[Denoise]", each) for each in self.processes[UNET].held]
            jobs = [Inside(each, self.steps_done(UNET, each.job)) for each in held]
            known = [self.router.job(number) for number in self.jobs(UNET)]
            ranked = sorted((job for job in known if job), key=lambda job: self.router.forecast.rank(job, self.now_ns))
            chosen = turns(self.batcher, jobs, self.now_ns / 1e9)
            assert chosen == [job.number for job in ranked]
            if len(held) > self.plan.depths["unet"]:
                assert chosen[0] == run.job, "it was sent to overtake all that were there"
                self.overtaken += 1


@settings(max_examples=40)
@given(st.sampled_from(["shortest", "deadline", "fair", "arrival"]), SUBMITS, st.booleans(), st.data())
def test_whoever_the_router_sends_to_overtake_goes_first_in_the_unet(
    order: Order,
    submits: list[tuple[int, tuple[int, int], float, float | None]],
    experienced: bool,
    data: st.DataObject,
) -> None:
    fleet = Watched(order)
    for width, height in (SMALL, LARGE) if experienced else ():
        fleet.pace = PACES[width, height]
        fleet.submit(f"{width}x{height}", steps=1, width=width, height=height)
        fleet.settle()
    fleet.pace = {}
    for number, (steps, (width, height), guidance, deadline) in enumerate(submits):
        asked = {"steps": steps, "width": width, "height": height, "guidance_scale": guidance, "deadline_s": deadline}
        fleet.submit(str(number), **asked)
        if fleet.jobs(TEXT):
            fleet.work(TEXT)
        for _ in range(data.draw(st.integers(0, 3))):
            held = [cast("pipes.Run[Denoise]", run) for run in fleet.processes[UNET].held]
            going = [run.job for run in held if fleet.steps_done(UNET, run.job) < run.task.steps]
            if going:
                fleet.step(UNET, data.draw(st.sampled_from(going)))
    fleet.settle()
    fleet.close()


def test_a_small_picture_of_many_steps_overtakes_a_large_one_of_few() -> None:
    """More rows, and less work: by rows it would stay behind."""
    fleet = Watched("shortest")
    for width, height in (SMALL, LARGE):
        fleet.pace = PACES[width, height]
        fleet.submit(f"{width}x{height}", steps=1, width=width, height=height)
        fleet.settle()
    for number in range(2):
        fleet.submit(f"large {number}", steps=5, width=LARGE[0], height=LARGE[1])
        fleet.work(TEXT)
    fleet.submit("small", steps=9)
    fleet.work(TEXT)
    assert fleet.overtaken == 1
    fleet.settle()
    fleet.close()
