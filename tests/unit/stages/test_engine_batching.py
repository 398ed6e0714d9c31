"""Whom the U-Net engine steps, by costs of each size, and that the simulated U-Net steps the same.

The U-Net is that of test_engine: a few additions.
"""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from orchestrator.tuning.clockwork import Clockwork
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.sharing import Sharing
from orchestrator.tuning.simulated_stage import Scene, SimulatedUnet
from stages.core import cores, pipes
from stages.core.costs import Cost
from stages.core.order import Order, SchedulingKey
from stages.core.tasks import Denoise, Task
from stages.unet import engine
from tests.unit.cards import CARD
from tests.unit.points import points
from tests.unit.stages.test_engine import SIZES, Asked, Bench, FakeRuntime

SMALL, LARGE = SIZES


@pytest.fixture(autouse=True, scope="module")
def _a_unet_of_additions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Runtime", FakeRuntime)
        patch.setattr(engine, "read_card", lambda folder: CARD)
        yield


def curves(small: float, large: float, decoded: tuple[float, float] = (0.0, 0.0)) -> tuple[Cost, ...]:
    """Seconds of a row, and of a decoding, of the two sizes."""
    found = [Cost("encode_text", 0, 0.0)]
    for (width, height), row, picture in zip(SIZES, (small, large), decoded, strict=True):
        found += [Cost("denoise", width * height, row), Cost("decode", width * height, picture)]
    return tuple(found)


class Told(Bench):
    """A bench whose hub knows what work costs."""

    costs: tuple[Cost, ...] = ()

    def send(self, run: pipes.Run[Denoise]) -> None:
        super().send(msgspec.structs.replace(run, costs=self.costs))


@pytest.fixture
def told() -> Iterator[Callable[..., Told]]:
    made: list[Told] = []

    def make(**fields: object) -> Told:
        made.append(Told(**fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def ended(bench: Bench) -> list[int]:
    return bench.said(pipes.Finished)


@pytest.mark.parametrize(
    ("costs", "first"),
    [
        (curves(1.0, 1.0), 2),
        (curves(1.0, 3.0), 1),
        (curves(3.0, 1.0), 2),
        (curves(1.0, 1.5), 2),
        (curves(1.0, 1.5, (3.0, 6.0)), 1),
        ((), 1),  # nothing is known: by the pixels
    ],
)
def test_the_engine_goes_by_the_costs_of_each_size(
    costs: tuple[Cost, ...], first: int, told: Callable[..., Told]
) -> None:
    """Ten rows of small pictures against six of large ones."""
    one = told(order="shortest")
    one.costs = costs
    one.admit(1, Asked(5, size=SMALL))
    one.admit(2, Asked(3, size=LARGE))
    one.finish()
    assert ended(one) == [first, 3 - first]


def test_whoever_comes_with_newer_costs_has_all_ranked_by_them(told: Callable[..., Told]) -> None:
    one = told(order="shortest")
    one.costs = curves(1.0, 1.0)
    one.admit(1, Asked(5, size=SMALL))
    one.admit(2, Asked(3, size=LARGE))
    one.step()
    assert [report.job for report in one.reports] == [2, 2], "taken up, and a step further"
    one.costs = curves(1.0, 9.0)
    one.admit(3, Asked(9, size=SMALL))
    one.finish()
    assert ended(one) == [1, 3, 2]


class Coming(msgspec.Struct, frozen=True):
    """A job, the turn at which it comes, and what the hub knows by then."""

    asked: Asked
    turn: int
    costs: tuple[Cost, ...]


SECONDS = st.integers(1, 9).map(float)
COMING = st.builds(
    Coming,
    st.builds(
        Asked,
        st.integers(1, 5),
        st.sampled_from([1.0, 4.0]),
        st.sampled_from([None, "euler", "pndm", "heun"]),
        st.just(0),
        st.sampled_from(SIZES),
        st.just(0),
        st.just(0.0),
        # Deadlines that no clock comes near: the two have different ones.
        st.builds(
            SchedulingKey,
            st.integers(0, 9).map(float),
            st.integers(0, 1),
            st.none() | st.sampled_from([-1e12, 1e12, 2e12]),
        ),
    ),
    st.integers(0, 8),
    st.just(()) | st.builds(curves, SECONDS, SECONDS, st.tuples(SECONDS, SECONDS)),
)

Steps = list[tuple[int, int, int]]
"""Job, step, and how many there are, of all steps that are told in a unit of work."""


class Simulated(SimulatedUnet):
    """The simulated U-Net, one unit of work at a time; it has no slots."""

    def seal(self, run: pipes.Run[Task]) -> None:
        pass

    def work(self) -> Steps:
        said: list[pipes.FromStage] = []
        for each in self.unit():
            if isinstance(each, msgspec.Struct):
                said.append(each)
            else:
                each(lambda: None)
                self.clock.run()
        return steps(said)


def steps(said: list[pipes.FromStage]) -> Steps:
    return [(each.job, each.step, each.steps) for each in said if isinstance(each, pipes.Stepped)]


@settings(max_examples=80)
@given(
    st.lists(COMING, min_size=1, max_size=8),
    st.integers(2, 8),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["shortest", "deadline", "fair", "arrival"]),
)
def test_engine_and_simulated_unet_step_the_same_jobs_together(
    coming: list[Coming], max_rows: int, streams: int, takes_turns: bool, order: Order
) -> None:
    bench = Told(max_rows=max_rows, streams=streams, order=order, turns=takes_turns)
    clock = Clockwork(Sharing({cores.parse(bench.spec.cores)}))
    simulated = Simulated(bench.spec, bench.view, Scene(CARD, Curves(points()), clock, lambda stage, said: None, 0.0))
    turn = most = 0
    while turn <= 8 or not bench.stage.idle:
        for job, one in enumerate(coming):
            if one.turn == turn:
                bench.costs = one.costs
                bench.admit(job, one.asked)
                simulated.admit(bench.runs[job])
        turn += 1
        before = len(bench.reports)
        bench.step()
        stepped = steps(bench.reports[before:])  # type: ignore[arg-type]
        assert simulated.work() == stepped
        most = max(most, len(stepped))
    assert simulated.idle
    event(f"most in a unit of work: {most}")
    assert sorted(ended(bench)) == list(range(len(coming)))
    bench.close()
