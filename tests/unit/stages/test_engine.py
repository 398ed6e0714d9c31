"""The U-Net engine around a U-Net of a few additions, whose every row depends on that row's inputs alone."""

import functools
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.plan import plan
from stages.core import pipes
from stages.core.arena import Arena, Layout, PoolSpec, SlotRef, View
from stages.core.board import Board, BoardWriter, Doing
from stages.core.checkpoint import Checkpoint
from stages.core.config import Config, ModelConfig, PipelineConfig, StageConfig
from stages.core.errors import BadOutput, ModelError
from stages.core.model import TOKENS, ModelCard
from stages.core.order import Order, SchedulingKey
from stages.core.tasks import Denoise
from stages.unet import engine, schedules
from stages.unet.engine import UnetStage
from stages.unet.noise import TorchGenerator
from stages.unet.sequence import Sequence
from tests.unit.cards import CARD, machine

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

SIZES = ((64, 64), (64, 128))
DIM = CARD.embed_dim
SLOTS = 12
MARK = 1000.0
"""Prompt embeds begin with this and the job's number, so that a forward can be asked whose rows it has."""
SPOILED = 0xA5
"""What the bytes of a slot become when it is freed."""


@dataclass
class Log:
    """What the U-Net was asked to do."""

    forwards: list[list[int]] = field(default_factory=list)
    """The job of each row, by forward."""
    in_flight: int = 0
    most: int = 0
    """Forwards in flight at once, at most."""
    broken: set[int] = field(default_factory=set)
    """Jobs whose rows come out as NaN."""


LOG = Log()


class FakeForward:
    """As stages.runtime.Forward. It reads its inputs when it is awaited, the last moment at which that may happen."""

    inputs = ("sample", "timestep", "encoder_hidden_states")
    outputs = ("out_sample",)
    precision = "f32"

    def __init__(self, shapes: Mapping[str, Series[int]]) -> None:
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.bound: dict[str, Array] = {}
        self.started: list[int] | None = None

    def another(self) -> "FakeForward":
        return FakeForward(self.shapes)

    def bind(self, name: str, array: Array) -> None:
        assert self.started is None, "bound while in flight"
        assert array.shape == self.shapes[name]
        self.bound[name] = array

    def allocate(self, name: str) -> Array:
        array = np.zeros(self.shapes["sample" if name in self.outputs else name], np.float32)
        if name in self.outputs:
            self.shapes[name] = array.shape
        self.bind(name, array)
        return array

    def infer(self) -> bool:
        self.start()
        return self.finish()

    def start(self) -> None:
        assert self.started is None, "started twice"
        self.started = self.jobs()
        LOG.forwards.append(self.started)
        LOG.in_flight += 1
        LOG.most = max(LOG.most, LOG.in_flight)

    def finish(self) -> bool:
        assert self.started is not None
        started, self.started = self.started, None
        LOG.in_flight -= 1
        timesteps = np.broadcast_to(self.bound["timestep"], len(started))
        output = self.bound["out_sample"]
        for row, job in enumerate(started):
            embeds = self.bound["encoder_hidden_states"][row]
            output[row] = unet(self.bound["sample"][row], float(timesteps[row]), embeds)  # type: ignore[arg-type]
            if job in LOG.broken:
                output[row] = np.nan
        return bool(np.isfinite(output).all())

    def jobs(self) -> list[int]:
        return [int(row[0, 0] - MARK) for row in self.bound["encoder_hidden_states"]]


def unet(sample: Floats, timestep: float, embeds: Floats) -> Floats:
    """One row in, one row out."""
    towards = np.float32(np.tanh(embeds[1:].mean() + timestep / 1000))
    return np.roll(sample, 1, axis=-1) * np.float32(0.3) + towards


class FakeRuntime:
    """As stages.runtime.Runtime."""

    scalar_timestep = False

    def __init__(self, spec: object, board: object) -> None:
        pass

    def ranks(self, part: str) -> dict[str, int]:
        assert part == "unet"
        return {"sample": 4, "timestep": 0 if self.scalar_timestep else 1, "encoder_hidden_states": 3}

    def compile(self, part: str, shapes: Mapping[str, Series[int]]) -> FakeForward:
        return FakeForward(shapes)


@pytest.fixture(autouse=True, scope="module")
def _no_openvino() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Runtime", FakeRuntime)
        patch.setattr(engine, "read_card", lambda folder: CARD)
        yield


class Asked(msgspec.Struct, frozen=True):
    """A job, but for its number and when it comes."""

    steps: int
    guidance_scale: float = 4.0
    schedule: str | None = None
    seed: int = 0
    size: tuple[int, int] = SIZES[0]
    prompt: int = 0
    rescale: float = 0.0
    scheduling_key: SchedulingKey = SchedulingKey(0.0)


class Bench:
    """The stage, the arena around it, and a hub that takes every slot back the moment it may."""

    def __init__(
        self,
        *,
        max_rows: int = 2,
        streams: int = 1,
        order: Order = "arrival",
        turns: bool = False,
        card: ModelCard = CARD,
    ) -> None:
        config = Config(
            model=ModelConfig(sizes=tuple(f"{width}x{height}" for width, height in SIZES)),
            pipeline=PipelineConfig(order=order, share="turns" if turns else "timeslice"),
            stage=(StageConfig(kind="unet", max_rows=max_rows, streams=streams),),
        )
        spec = plan(config, card, machine(2)).stages[1]
        self.spec = msgspec.structs.replace(
            spec, pools=tuple(PoolSpec(pool.name, SLOTS, pool.slot_bytes) for pool in spec.pools[:2])
        )
        layout = Layout(self.spec.pools)
        self.arena = Arena(layout)
        self.board = Board(3)
        self.text = View(self.arena.region.fd, layout, 0)
        self.view = View(self.arena.region.fd, layout, self.spec.number)
        self.stage = self.new_stage()
        self.runs: dict[int, pipes.Run[Denoise]] = {}
        """Jobs that are in the stage."""
        self.reports: list[pipes.Report] = []
        self.latents: dict[int, Floats] = {}
        """Final latents, by job."""
        self.ends: dict[int, list[str]] = {}

    def new_stage(self) -> UnetStage:
        LOG.__init__()  # type: ignore[misc]
        stage = UnetStage(self.spec, self.view, BoardWriter(self.board.region, self.spec.number))
        stage.load()
        LOG.forwards.clear()
        return stage

    def close(self) -> None:
        self.board.close()
        self.arena.close()

    def admit(self, job: int, asked: Asked) -> None:
        rows = CARD.rows(asked.guidance_scale)
        shape = (rows, TOKENS, DIM)
        given = self.arena.reserve("embeds", 0, job)
        embeds = self.text.write(given)[: rows * TOKENS * DIM * 4].view(np.float32).reshape(shape)
        embeds[...] = np.random.default_rng(asked.prompt).standard_normal(shape)
        embeds[:, 0, 0] = MARK + job
        self.text.seal(given, embeds.nbytes)
        self.send(
            pipes.Run(
                job,
                Denoise(
                    width=asked.size[0],
                    height=asked.size[1],
                    steps=asked.steps,
                    guidance_scale=asked.guidance_scale,
                    guidance_rescale=asked.rescale,
                    schedule=asked.schedule,
                    seed=asked.seed,
                ),
                self.arena.reserve("latents", self.spec.number, job),
                (pipes.Input(given, shape),),
                ("decode",),
                asked.scheduling_key,
            )
        )

    def send(self, run: pipes.Run[Denoise]) -> None:
        self.runs[run.job] = run
        self.stage.admit(run)

    def drop(self, job: int) -> None:
        """The stage answers at once, and the hub frees the slots."""
        self.stage.drop(job)
        self.end(job, "dropped")

    def step(self) -> None:
        """One turn of the loop."""
        for report in self.stage.step():
            self.reports.append(report)
            assert report.job in self.runs, f"{report} of a job that has ended"
            match report:
                case pipes.Finished():
                    run = self.runs[report.job]
                    assert report.shape == CARD.latent_shape(run.task.width, run.task.height)
                    sealed = self.arena.read(run.output).view(np.float32)
                    self.latents[report.job] = sealed.reshape(report.shape).copy()
                    self.end(report.job, "put")
                case pipes.Fault():
                    assert report.code == BadOutput.code
                    self.end(report.job, "fault")

    def finish(self) -> None:
        turns = 0
        while not self.stage.idle:
            self.step()
            turns += 1
            assert turns < 1000, "it never ends"

    def end(self, job: int, how: str) -> None:
        run = self.runs.pop(job)
        self.ends.setdefault(job, []).append(how)
        for slot in (run.inputs[0].slot, run.output):
            self.payload(slot)[...] = SPOILED
            self.arena.free(slot)

    def payload(self, slot: SlotRef) -> NDArray[np.uint8]:
        return self.arena.region.array(*self.arena.layout.payloads[slot.index])

    def check_free_slots(self) -> None:
        """Nothing was written into a slot after it had been freed, nor before anybody had it."""
        for index in self.arena.layout.indices["latents"]:
            if not self.arena.state(index):
                payload = self.arena.region.array(*self.arena.layout.payloads[index])
                assert payload[0] in (0, SPOILED)
                assert (payload == payload[0]).all(), f"slot {index} was written"

    def said(self, kind: type) -> list[int]:
        return [report.job for report in self.reports if isinstance(report, kind)]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**fields: object) -> Bench:
        made.append(Bench(**fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@functools.cache
def alone(asked: Asked) -> Floats:
    """The final latents of a job that has the U-Net to itself."""
    bench = Bench()
    bench.admit(1, asked)
    bench.finish()
    bench.close()
    return bench.latents[1]


def test_alone_is_what_the_schedule_and_the_unet_make_together() -> None:
    """Written out, for the one case in which it is short: one step of LCM without guidance."""
    asked = Asked(1, 1.0, "lcm", seed=3, prompt=4)
    schedule = schedules.build(CARD.scheduler, 1, "lcm")
    noise = TorchGenerator(3).randn((4, 8, 8)) * np.float32(schedule.init_noise_sigma)
    embeds = np.random.default_rng(4).standard_normal((1, TOKENS, DIM)).astype(np.float32)
    output = unet(noise, float(schedule.timesteps[0]), embeds[0])
    memory = np.zeros((schedule.state_rows, 4, 8, 8), np.float32)
    expected = schedule.advance(0, output, noise, memory, lambda: pytest.fail("the last step draws nothing"))
    np.testing.assert_array_equal(alone(asked), CARD.to_decoder(expected))


# Anything may come and go.

ASKED = st.builds(
    Asked,
    st.integers(1, 5),
    st.sampled_from([1.0, 4.0]),
    st.sampled_from(["ddim", "euler", "lcm"]),
    st.integers(0, 2),
    st.sampled_from([SIZES[0], SIZES[0], SIZES[1]]),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.0, 0.7]),
    st.builds(SchedulingKey, st.integers(0, 9).map(float), st.integers(0, 1), st.none() | st.integers(0, 9).map(float)),
)


class Coming(msgspec.Struct, frozen=True):
    """A job, the turn at which it comes, and the turn at which it is given up, if it is still there."""

    asked: Asked
    comes: int
    dropped: int | None
    broken: bool


COMING = st.builds(
    Coming,
    ASKED,
    st.integers(0, 8),
    st.none() | st.none() | st.integers(0, 12),
    st.integers(0, 5).map(lambda n: n == 5),
)


@settings(max_examples=100)
@given(
    st.lists(COMING, min_size=1, max_size=6),
    st.integers(2, 8),
    st.integers(1, 3),
    st.sampled_from(["shortest", "deadline", "fair", "arrival"]),
)
def test_every_job_ends_once_and_as_if_it_had_been_alone(
    coming: list[Coming], max_rows: int, streams: int, order: Order
) -> None:
    bench = Bench(max_rows=max_rows, streams=streams, order=order)
    LOG.broken = {job for job, one in enumerate(coming) if one.broken}
    for turn in range(10_000):
        for job, one in enumerate(coming):
            if one.comes == turn:
                bench.admit(job, one.asked)
            if one.dropped == turn and job in bench.runs:
                bench.drop(job)
        if not bench.stage.idle:
            bench.step()
        bench.check_free_slots()
        if turn >= 12 and bench.stage.idle:
            break
    assert LOG.in_flight == 0, "a forward was never awaited"
    assert all(len(ends) == 1 for ends in bench.ends.values())
    shared = False
    for rows in LOG.forwards:
        assert len(rows) <= max_rows
        shared = shared or len(set(rows)) > 1
    event(f"jobs shared a forward: {shared}, forwards in flight: {LOG.most}")
    assert LOG.most <= streams
    for job, one in enumerate(coming):
        [end] = bench.ends.get(job, ["never admitted"])
        gave_up = one.dropped is not None and one.dropped >= one.comes
        assert end in ({"fault"} if one.broken else {"put"}) | ({"dropped"} if gave_up else set())
        assert bench.said(pipes.Started).count(job) == (
            1 if end != "dropped" or job in bench.said(pipes.Started) else 0
        )
        if end == "put":
            np.testing.assert_array_equal(bench.latents[job], alone(one.asked))
            steps = [r.step for r in bench.reports if isinstance(r, pipes.Stepped) and r.job == job]
            assert steps == list(range(1, len(steps) + 1))
    bench.close()


# Packing.


def test_jobs_of_one_size_share_a_forward_up_to_max_rows(bench: Callable[..., Bench]) -> None:
    one = bench(max_rows=5)
    for job, (guidance, size) in enumerate([(4.0, 0), (4.0, 1), (4.0, 0), (1.0, 0), (1.0, 0)]):
        one.admit(job, Asked(1, guidance, size=SIZES[size], seed=job))
    one.finish()
    assert LOG.forwards == [[0, 0, 2, 2, 3], [1, 1], [4]]


def test_a_unet_of_one_timestep_takes_one_job_a_forward(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRuntime, "scalar_timestep", True)
    one = bench(max_rows=8)
    asked = [Asked(2, seed=seed) for seed in range(2)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.finish()
    assert LOG.forwards == [[0, 0], [0, 0], [1, 1], [1, 1]]
    for job, each in enumerate(asked):
        np.testing.assert_array_equal(one.latents[job], alone(each))


def test_several_forwards_are_in_flight_at_once_each_with_jobs_of_its_own(bench: Callable[..., Bench]) -> None:
    one = bench(streams=3)
    for job in range(4):
        one.admit(job, Asked(3, seed=job))
    one.finish()
    assert LOG.most == 3
    assert LOG.forwards[:3] == [[0, 0], [1, 1], [2, 2]]
    assert [one.ends[job] for job in range(4)] == [["put"]] * 4


def test_a_forward_is_compiled_once_for_its_shape(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[int, ...]] = []

    class Counting(FakeRuntime):
        def compile(self, part: str, shapes: Mapping[str, Series[int]]) -> FakeForward:
            compiled.append(tuple(shapes["sample"]))
            return super().compile(part, shapes)

    monkeypatch.setattr(engine, "Runtime", Counting)
    one = bench(max_rows=4, streams=2)
    for job in range(6):
        one.admit(job, Asked(4, size=SIZES[job % 2], seed=job))
    one.finish()
    assert compiled[0] == (2, 4, 8, 8), "what the usual picture needs is there when loading ends"
    assert sorted(compiled) == sorted(set(compiled))


# Order.


def jobs_of_forwards() -> list[int]:
    """The first job of each forward, without repetition."""
    firsts = [rows[0] for rows in LOG.forwards]
    return [job for place, job in enumerate(firsts) if place == 0 or job != firsts[place - 1]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("arrival", [0, 1, 2, 3]), ("shortest", [1, 3, 0, 2]), ("deadline", [2, 3, 0, 1])],
)
def test_the_order_decides_who_has_the_next_step(
    order: Order, expected: list[int], bench: Callable[..., Bench]
) -> None:
    one = bench(order=order)
    steps, deadlines = (4, 1, 5, 3), (None, None, 1e12, 2e12)
    for job in range(4):
        one.admit(job, Asked(steps[job], seed=job, scheduling_key=SchedulingKey(job * 1e-9, 0, deadlines[job])))
    one.finish()
    assert jobs_of_forwards() == expected


def test_fair_is_a_step_each(bench: Callable[..., Bench]) -> None:
    one = bench(order="fair")
    for job in range(3):
        one.admit(job, Asked(2, seed=job, scheduling_key=SchedulingKey(float(job))))
    one.finish()
    assert [rows[0] for rows in LOG.forwards] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("order", ["shortest", "deadline", "fair", "arrival"])
def test_whoever_is_more_urgent_overtakes_at_the_next_step(order: Order, bench: Callable[..., Bench]) -> None:
    one = bench(order=order)
    first, urgent = Asked(5, seed=1), Asked(2, seed=2, scheduling_key=SchedulingKey(9.0, priority=1))
    one.admit(1, first)
    one.step()
    one.step()
    one.admit(2, urgent)
    one.finish()
    assert [rows[0] for rows in LOG.forwards] == [1, 1, 2, 2, 1, 1, 1]
    np.testing.assert_array_equal(one.latents[1], alone(first))
    np.testing.assert_array_equal(one.latents[2], alone(urgent))


def test_the_least_work_counts_rows_and_what_was_done(bench: Callable[..., Bench]) -> None:
    one = bench(order="shortest")
    one.admit(1, Asked(4, seed=1))
    for _ in range(3):
        one.step()
    one.admit(2, Asked(3, 1.0, seed=2))  # three rows, and job 1 has two left
    one.admit(3, Asked(2, seed=3))  # four rows
    one.finish()
    assert jobs_of_forwards() == [1, 2, 3]


# Leaving.


@pytest.mark.parametrize("streams", [1, 2])
def test_a_job_dropped_in_flight_writes_nothing_more(streams: int, bench: Callable[..., Bench]) -> None:
    one = bench(max_rows=4, streams=streams)
    asked = [Asked(4, seed=seed) for seed in range(4)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.step()
    one.drop(1)
    one.drop(2)
    one.admit(9, asked[2])  # in the slot that has just become free
    while not one.stage.idle:
        one.step()
        one.check_free_slots()
    assert (one.ends[1], one.ends[2]) == (["dropped"], ["dropped"])
    for job in (0, 3):
        np.testing.assert_array_equal(one.latents[job], alone(asked[job]))
    np.testing.assert_array_equal(one.latents[9], alone(asked[2]))


def test_a_forward_whose_jobs_have_all_gone_is_still_awaited(bench: Callable[..., Bench]) -> None:
    """It holds cores, and what it took would be told of the next job."""
    one = bench(streams=2)
    for job in range(2):
        one.admit(job, Asked(3, seed=job))
    one.step()
    assert LOG.in_flight == 1
    for job in range(2):
        one.drop(job)
    one.finish()
    assert LOG.in_flight == 0
    assert one.board.read(one.spec.number).doing is Doing.IDLE


def test_nothing_computes_when_a_stage_that_takes_turns_ends_its_turn(bench: Callable[..., Bench]) -> None:
    one = bench(streams=2, turns=True)
    asked = [Asked(3, seed=job) for job in range(3)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    while not one.stage.idle:
        one.step()
        assert LOG.in_flight == 0
    assert LOG.most == 2
    for job, each in enumerate(asked):
        np.testing.assert_array_equal(one.latents[job], alone(each))


# Coming back.


@pytest.mark.parametrize("done", [0, 1, 3, 5])
@pytest.mark.parametrize("schedule", ["ddim", "euler", "lcm", "euler_a", "dpmpp_2m", "pndm", "heun"])
def test_a_job_goes_on_where_a_dead_process_was(schedule: str, done: int, bench: Callable[..., Bench]) -> None:
    asked, other = Asked(6, schedule=schedule, seed=5), Asked(6, schedule=schedule, seed=6, prompt=1)
    one = bench(max_rows=4)
    one.admit(1, asked)
    one.admit(2, other)
    for _ in range(done):
        one.step()
    before = len(one.reports)
    runs = [
        msgspec.structs.replace(run, output=one.arena.regrant(run.output, one.spec.number)) for run in one.runs.values()
    ]
    one.stage = one.new_stage()
    for run in runs:
        one.send(run)
    one.finish()
    took = [report for report in one.reports[before:] if isinstance(report, pipes.Started)]
    assert [report.step for report in took] == [done, done]
    steps = [r.step for r in one.reports[before:] if isinstance(r, pipes.Stepped) and r.job == 1]
    assert steps == list(range(done + 1, took[0].steps + 1))
    np.testing.assert_array_equal(one.latents[1], alone(asked))
    np.testing.assert_array_equal(one.latents[2], alone(other))


def test_a_job_that_a_dead_process_had_finished_is_put_down_at_once(bench: Callable[..., Bench]) -> None:
    asked = Asked(3, seed=5)
    one = bench()
    one.admit(1, asked)
    one.step()
    run = one.runs[1]
    shape = CARD.latent_shape(*asked.size)
    final = CARD.from_decoder(alone(asked))
    Checkpoint(one.payload(run.output), 1, shape).save(3, final, np.zeros((0, *shape), np.float32))
    before = len(one.reports)
    one.stage = one.new_stage()  # and the last reports of the first one were never heard
    one.send(msgspec.structs.replace(run, output=one.arena.regrant(run.output, one.spec.number)))
    one.finish()
    assert [type(report) for report in one.reports[before:]] == [pipes.Started, pipes.Finished]
    np.testing.assert_allclose(one.latents[1], alone(asked), rtol=1e-6)


def test_a_step_that_a_dying_process_tore_is_done_again(bench: Callable[..., Bench]) -> None:
    asked = Asked(6, schedule="lcm", seed=5)
    one = bench()
    one.admit(1, asked)
    for _ in range(4):
        one.step()
    run = one.runs[1]
    shape = CARD.latent_shape(*asked.size)
    payload = one.payload(run.output)
    saved = Checkpoint(payload, 1, shape).restore()
    assert saved is not None
    assert saved.step == 4
    newest = payload.tobytes().rfind(saved.latents.tobytes())
    payload[newest + 3] ^= 1
    again = msgspec.structs.replace(run, output=one.arena.regrant(run.output, one.spec.number))
    one.stage = one.new_stage()
    one.send(again)
    before = len(one.reports)
    one.finish()
    assert [r.step for r in one.reports[before:] if isinstance(r, pipes.Stepped)] == [4, 5, 6]
    np.testing.assert_array_equal(one.latents[1], alone(asked))


# Breaking.


def test_nan_in_the_rows_of_one_job_fails_that_job_alone(bench: Callable[..., Bench]) -> None:
    one = bench(max_rows=6)
    asked = [Asked(3, seed=seed) for seed in range(3)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.step()
    LOG.broken = {1}
    one.finish()
    assert LOG.forwards[1] == [0, 0, 1, 1, 2, 2], "they were in one forward"
    assert [one.ends[job] for job in range(3)] == [["put"], ["fault"], ["put"]]
    for job in (0, 2):
        np.testing.assert_array_equal(one.latents[job], alone(asked[job]))


def breaks(one: Bench, error: str = "it broke") -> tuple[int, ...]:
    """Whom the unit of work that raises now is about; they are dropped, as stages.loop does it."""
    one.stage.working = ()
    with pytest.raises(RuntimeError, match=error):
        one.step()
    for job in one.stage.working:
        one.drop(job)
    return one.stage.working


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("method", ["start", "finish"])
def test_a_forward_that_breaks_costs_the_jobs_in_it_and_no_others(
    streams: int, method: str, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(streams=streams, max_rows=4)
    asked = [Asked(3, seed=seed) for seed in range(4)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    works = getattr(FakeForward, method)
    broken: list[FakeForward] = []

    def break_once(forward: FakeForward) -> bool:
        LOG.in_flight -= method == "finish"
        broken.append(forward)
        monkeypatch.setattr(FakeForward, method, works)
        raise RuntimeError("it broke")

    monkeypatch.setattr(FakeForward, method, break_once)
    assert breaks(one) == (0, 1)
    broken[0].started = [0]  # whoever starts it again is found out
    one.finish()
    for job in (2, 3):
        np.testing.assert_array_equal(one.latents[job], alone(asked[job]))
    assert (LOG.in_flight, one.ends[0], one.ends[1]) == (0, ["dropped"], ["dropped"])
    assert not any(one.stage._forwards._in_flight.values()), "its shape could never be put away"


@pytest.mark.parametrize("method", ["advance", "model_input", "finish"])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_what_breaks_about_one_job_of_a_forward_costs_that_job_alone(
    method: str, victim: int, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(max_rows=6)
    asked = [Asked(3, seed=seed) for seed in range(3)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    works = getattr(Sequence, method)

    def break_one(sequence: Sequence, *arguments: Floats) -> object:
        if sequence.run.job == victim and sequence.step >= 2:
            raise RuntimeError("it broke")
        return works(sequence, *arguments)

    monkeypatch.setattr(Sequence, method, break_one)
    one.step()
    one.step()
    assert breaks(one) == (victim,)
    one.finish()
    assert LOG.forwards[0] == [0, 0, 1, 1, 2, 2], "they were in one forward"
    for job in {0, 1, 2} - {victim}:
        assert one.ends[job] == ["put"]
        np.testing.assert_array_equal(one.latents[job], alone(asked[job]))
        assert [r.step for r in one.reports if isinstance(r, pipes.Stepped) and r.job == job] == [1, 2, 3]
        assert one.said(pipes.Started).count(job) == 1
    assert one.ends[victim] == ["dropped"]
    assert not any(one.stage._forwards._in_flight.values())


def test_all_that_break_in_one_forward_end_and_none_goes_on_from_half_a_step(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their schedules have moved on, though their checkpoints have not: a picture of it would be another one."""
    one = bench(max_rows=6)
    asked = [Asked(4, schedule="dpmpp_2m", seed=seed) for seed in range(3)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.step()
    save = Checkpoint.save
    saved: list[Checkpoint] = []

    def break_twice(checkpoint: Checkpoint, step: int, latents: Floats, memory: Floats) -> None:
        saved.append(checkpoint)
        if len(saved) <= 2:
            raise RuntimeError("it broke")
        save(checkpoint, step, latents, memory)

    monkeypatch.setattr(Checkpoint, "save", break_twice)
    assert breaks(one) == (0, 1)
    one.finish()
    assert one.ends == {0: ["dropped"], 1: ["dropped"], 2: ["put"]}
    np.testing.assert_array_equal(one.latents[2], alone(asked[2]))


def test_a_job_that_ends_as_its_neighbour_breaks_is_put_down_after_it(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(max_rows=4)
    asked = [Asked(1, seed=0), Asked(3, seed=1)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    seal, advance = View.seal, Sequence.advance

    def break_one(sequence: Sequence, output: Floats) -> None:
        if sequence.run.job == 1:
            raise RuntimeError("it broke")
        advance(sequence, output)

    def torn(view: View, slot: SlotRef, nbytes: int) -> None:
        monkeypatch.setattr(View, "seal", seal)
        raise RuntimeError("it tore")

    monkeypatch.setattr(Sequence, "advance", break_one)
    monkeypatch.setattr(View, "seal", torn)
    assert breaks(one, "it broke") == (1,)
    assert breaks(one, "it tore") == (0,)
    assert one.stage.idle


def test_a_finished_job_that_cannot_be_put_down_is_blamed_and_not_the_last_forward_s(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has come from a process that died after its last step; the jobs of the last forward are innocent."""
    one = bench(max_rows=4)
    asked = [Asked(4, seed=seed) for seed in range(2)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.step()
    shape = CARD.latent_shape(*SIZES[0])
    with monkeypatch.context() as patch:  # until its checkpoint lies in the slot
        patch.setattr(one.stage, "admit", lambda run: None)
        one.admit(7, Asked(1))
    Checkpoint(one.payload(one.runs[7].output), 7, shape).save(
        1, np.zeros(shape, np.float32), np.zeros((0, *shape), np.float32)
    )
    one.stage.admit(one.runs[7])
    seal = View.seal

    def torn(view: View, slot: SlotRef, nbytes: int) -> None:
        if 7 in one.runs and slot == one.runs[7].output:
            raise RuntimeError("it broke")
        seal(view, slot, nbytes)

    monkeypatch.setattr(View, "seal", torn)
    with pytest.raises(RuntimeError, match="it broke"):
        one.step()
    assert one.stage.working == (7,), "whatever the forward before had named"
    one.drop(7)
    one.finish()
    for job, each in enumerate(asked):
        np.testing.assert_array_equal(one.latents[job], alone(each))


def test_rows_that_cannot_be_compiled_together_are_done_apart_and_nobody_pays(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Small(FakeRuntime):
        def compile(self, part: str, shapes: Mapping[str, Series[int]]) -> FakeForward:
            if shapes["sample"][0] > 2:
                raise ModelError("no memory for so many rows")
            return super().compile(part, shapes)

    monkeypatch.setattr(engine, "Runtime", Small)
    one = bench(max_rows=4, streams=2)
    asked = [Asked(3, seed=seed) for seed in range(3)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    one.finish()
    for job, each in enumerate(asked):
        np.testing.assert_array_equal(one.latents[job], alone(each))
    assert all(len(rows) == 2 for rows in LOG.forwards)
    [line] = [record.getMessage() for record in caplog.records]
    assert "no memory for so many rows" in line


def test_a_second_request_that_cannot_be_had_costs_the_jobs_it_is_for(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shape is compiled, so fewer rows would not be tried: to ask again and again would be all that is done."""
    one = bench(max_rows=4, streams=2)
    asked = [Asked(2, seed=seed) for seed in range(4)]
    for job, each in enumerate(asked):
        one.admit(job, each)
    works = FakeForward.another

    def break_once(forward: FakeForward) -> FakeForward:
        monkeypatch.setattr(FakeForward, "another", works)
        raise RuntimeError("it broke")

    monkeypatch.setattr(FakeForward, "another", break_once)
    assert breaks(one) == (2, 3)
    one.finish()
    for job in (0, 1):
        np.testing.assert_array_equal(one.latents[job], alone(asked[job]))


def test_all_news_of_a_forward_come_before_what_ends(bench: Callable[..., Bench]) -> None:
    """What ends is sent at once, and takes the news along."""
    one = bench(max_rows=4)
    one.admit(1, Asked(1, seed=1))
    one.admit(2, Asked(2, seed=2))
    one.step()
    kinds = [(type(report).__name__, report.job) for report in one.reports]
    assert kinds == [("Started", 1), ("Started", 2), ("Stepped", 1), ("Stepped", 2), ("Finished", 1)]


def test_the_board_tells_whose_step_it_is(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.admit(7, Asked(2))
    reports = one.stage.step()
    assert isinstance(next(reports), pipes.Started)
    row = one.board.read(one.spec.number)
    assert (row.doing, row.job, row.step, row.steps) == (Doing.BUSY, 7, 0, 2)
    list(reports)
    assert one.board.read(one.spec.number).step == 1
    assert not one.stage.idle
    one.stage.drop(7)
    assert one.stage.idle
