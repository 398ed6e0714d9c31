import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bench.figures import figures
from orchestrator.bench.workload import DEFAULT, Poisson, arrivals
from orchestrator.plan import Plan, plan
from orchestrator.routing.router import Action, Router
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.load import load
from orchestrator.tuning.score import fill, steady
from orchestrator.tuning.simulate import Conditions, Simulated, simulate
from stages.core import config, pipes
from tests.unit.cards import CARD, DISTILLED, machine
from tests.unit.points import TEXT, UNET, VAE, points

FREE = Conditions(message_s=0.0, wire_s=0.0, interference=0.0, handover_s=0.0)
CURVES = Curves(points())


def planned(*overrides: str, cores: int = 2) -> Plan:
    return plan(config.load(None, overrides, environ={}), CARD, machine(cores))


def play(which: Plan, jobs: int = 12, in_flight: int = 3, conditions: Conditions = FREE, steps: int = 5) -> Simulated:
    return simulate(which, machine(4), CURVES, load(jobs, steps), in_flight, conditions)


def test_one_prompt_takes_what_its_stages_take_alone() -> None:
    alone = play(planned(), jobs=1, in_flight=1)
    expected = TEXT.seconds(2, 1, 1) + 5 * UNET.seconds(2, 1, 2) + VAE.seconds(2, 1, 1)
    assert alone.played.records[0].latency_s == pytest.approx(expected, rel=0.01)


def test_stages_of_their_own_cores_work_side_by_side() -> None:
    which = planned("stage.unet.cores=0", "stage.text.cores=1", "stage.vae.cores=1", "pipeline.share=timeslice")
    score = steady(play(which, jobs=60, in_flight=4).played.records, 4)
    slowest = max(5 * UNET.seconds(1, 1, 2), VAE.seconds(1, 1, 1) + TEXT.seconds(1, 1, 1))
    assert score.images_per_s == pytest.approx(1 / slowest, rel=0.03)


def test_turns_give_the_cores_to_one_stage_at_a_time() -> None:
    found = play(planned("pipeline.share=turns"), jobs=60, in_flight=4)
    score = steady(found.played.records, 4)
    work = TEXT.seconds(2, 1, 1) + 5 * UNET.seconds(2, 1, 2) + VAE.seconds(2, 1, 1)
    assert score.images_per_s == pytest.approx(1 / work, rel=0.03)
    assert sum(share for name, share in found.busy.items() if name != "hub") <= 1.001


def test_rows_of_several_prompts_share_a_forward() -> None:
    narrow = steady(play(planned("stage.unet.max_rows=2"), 80, 10, steps=20).played.records, 10)
    wide = steady(play(planned("stage.unet.max_rows=16"), 80, 10, steps=20).played.records, 10)
    assert wide.images_per_s > 1.1 * narrow.images_per_s


def test_streams_fly_at_once() -> None:
    which = planned("stage.unet.streams=2", "stage.unet.max_rows=2")
    score = steady(play(which, jobs=80, in_flight=4, steps=50).played.records, 4)
    core_s = TEXT.seconds(1, 1, 1) + 50 * UNET.seconds(2, 2, 2) + VAE.seconds(1, 1, 1)
    assert score.images_per_s == pytest.approx(2 / core_s, rel=0.05)


def test_the_hub_and_interference_cost_something() -> None:
    free = steady(play(planned(), 40, 4).played.records, 4).images_per_s
    busy = steady(play(planned(), 40, 4, Conditions(0.001, 0.0, 0.0)).played.records, 4).images_per_s
    crowded = steady(play(planned(), 40, 4, Conditions(0.0, 0.0, 0.5)).played.records, 4).images_per_s
    assert busy < 0.97 * free
    assert crowded < 0.97 * free


def test_a_handover_costs_something_where_stages_take_turns() -> None:
    def rate(share: str, handover_s: float) -> float:
        at = msgspec.structs.replace(FREE, handover_s=handover_s)
        return steady(play(planned(f"pipeline.share={share}"), 40, 4, at).played.records, 4).images_per_s

    work = TEXT.seconds(2, 1, 1) + 5 * UNET.seconds(2, 1, 2) + VAE.seconds(2, 1, 1)
    four = 1 / (work + 4 * 0.01)  # to the text encoder and back, to the decoder and back
    assert rate("turns", 0.01) == pytest.approx(four, rel=0.05)
    assert rate("timeslice", 0.01) == rate("timeslice", 0.0)


def test_the_same_again_comes_to_the_same() -> None:
    mix = arrivals(DEFAULT, Poisson(8.0), 30, seed=3)
    first, second = (simulate(planned(), machine(2), CURVES, mix, None, FREE) for _ in range(2))
    assert first == second


def test_poisson_arrivals_wait_longer_the_more_there_are() -> None:
    def p99(rate: float) -> float:
        found = figures(simulate(planned(), machine(2), CURVES, arrivals(DEFAULT, Poisson(rate), 120, 0)).played)
        assert found.all.latency_s is not None
        return found.all.latency_s.p99

    assert p99(2.0) < p99(15.0) < p99(60.0)


def test_a_quota_is_kept() -> None:
    whole = simulate(planned(), machine(2), CURVES, load(30, 5), 4, FREE)
    half = simulate(planned(), machine(2, quota=1.0), CURVES, load(30, 5), 4, FREE)
    assert sum(half.cores_used.values()) <= 1.001
    assert half.played.span_s > 1.3 * whole.played.span_s


@given(
    st.sampled_from(["timeslice", "turns", "disjoint"]),
    st.integers(1, 3),
    st.sampled_from([1, 2]),
    st.sampled_from([2, 4, 16]),
    st.sampled_from(["shortest", "deadline", "fair", "arrival"]),
    st.integers(1, 20),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_every_prompt_is_done_and_no_core_works_twice(
    share: str, replicas: int, streams: int, rows: int, order: str, in_flight: int, distilled: bool
) -> None:
    settings_ = config.load(
        None,
        [
            f"pipeline.share={share}",
            f"pipeline.order={order}",
            f"stage.unet.replicas={replicas}",
            f"stage.unet.streams={streams}",
            f"stage.unet.max_rows={rows}",
        ],
        environ={},
    )
    which = plan(settings_, DISTILLED if distilled else CARD, machine(6))
    found = simulate(which, machine(6), CURVES, load(25, 4), in_flight, Conditions(0.0002, 0.0001, 0.1))
    assert len(found.played.records) == 25
    assert all(record.code is None and len(record.timings) == 1 for record in found.played.records)
    assert sum(found.cores_used.values()) <= 6.001
    # Little's law: those in flight are those that come in a second, times how long each stays.
    if in_flight <= 5:
        mean = sum(record.latency_s or 0.0 for record in found.played.records) / found.played.span_s
        assert mean <= in_flight + 1e-6


def test_fill_is_what_the_forwards_hold_and_two_more() -> None:
    assert fill(planned()) == 3
    assert fill(planned("stage.unet.streams=2", "stage.unet.max_rows=8")) == 10
    assert fill(plan(config.load(None, ["stage.unet.max_rows=8"], environ={}), DISTILLED, machine(2))) == 10


def test_steady_leaves_out_how_the_pipeline_fills_and_empties() -> None:
    found = play(planned(), jobs=40, in_flight=4)
    whole = figures(found.played).all.images_per_s
    assert steady(found.played.records, 4).images_per_s > whole
    assert math.isfinite(steady(found.played.records[:3], 4).p99_s)


def test_larger_pictures_take_longer() -> None:
    sizes = 'model.sizes=["64x64", "128x128"]'
    which = plan(config.load(None, [sizes], environ={}), CARD, machine(2))
    large = [
        msgspec.structs.replace(each, submit=msgspec.structs.replace(each.submit, width=128, height=128))
        for each in load(1, 5)
    ]
    small = simulate(which, machine(2), CURVES, load(1, 5), 1, FREE).played.records[0].latency_s
    big = simulate(which, machine(2), CURVES, large, 1, FREE).played.records[0].latency_s
    assert small is not None
    assert big is not None
    assert big > 3 * small


def test_the_hub_hears_of_short_steps_as_often_as_from_a_real_stage() -> None:
    """A frame for the prompt, two a stage, and one of the news of all steps within NEWS_S."""
    found = play(planned(), jobs=1, in_flight=1, conditions=msgspec.structs.replace(FREE, message_s=1e-5), steps=100)
    frames = found.cores_used["hub"] * found.played.span_s / 1e-5
    assert 100 * UNET.seconds(2, 1, 2) == pytest.approx(0.64)
    assert 7 + 10 <= frames <= 7 + 17


def test_no_news_wait_for_the_end_of_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small picture and a large one, a step each in turn: those of the large one take half a second."""
    waited_s: list[float] = []
    report = Router.report

    def heard(router: Router, stage: str, message: pipes.Report, now_ns: int) -> list[Action]:
        if isinstance(message, pipes.Stepped):
            waited_s.append((now_ns - message.ended_ns) / 1e9)
        return report(router, stage, message, now_ns)

    monkeypatch.setattr(Router, "report", heard)
    keys = ['model.sizes=["64x64", "512x512"]', "pipeline.order=fair"]
    which = plan(config.load(None, keys, environ={}), CARD, machine(2))
    small, other = load(2, 5)
    large = msgspec.structs.replace(other, submit=msgspec.structs.replace(other.submit, width=512, height=512))
    found = simulate(which, machine(2), CURVES, [small, large], 2, FREE)
    assert found.played.span_s > 2.0
    assert len(waited_s) == 10
    assert max(waited_s) < 0.1
