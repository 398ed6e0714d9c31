"""Estimates, and deadlines under overload, in simulation: the real router, on simulated processes and time."""

import random
from functools import cache
from statistics import fmean

import msgspec
import pytest

from orchestrator.bench.drive import Record
from orchestrator.bench.workload import Arrival
from orchestrator.plan import plan
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.simulate import simulate
from stages.core import config
from stages.core.wire import Submit
from tests.unit.cards import CARD, machine
from tests.unit.points import points

CURVES = Curves(points())
STEPS = {"short": 4, "long": 50}
SEEDS = range(3)
JOBS, BEFORE = 150, 30
OVERLOAD, PATIENCE = 1.2, 3.0


def arrival(number: int, kind: str, at_s: float, deadline_s: float | None = None) -> Arrival:
    submit = Submit(id=f"{number}", prompt="a fox", seed=number, steps=STEPS[kind], deadline_s=deadline_s)
    return Arrival(kind, submit, at_s)


def work(kind: str) -> int:
    """In steps; a decoding counts as three of them."""
    return STEPS[kind] + 3


def play(order: str, load: list[Arrival]) -> list[Record]:
    overrides = [f"pipeline.order={order}", "pipeline.queue_limit=1000"]
    planned = plan(config.load(None, overrides, environ={}), CARD, machine(2))
    return simulate(planned, machine(2), CURVES, load).played.records


@cache
def alone(kind: str) -> float:
    """Seconds that it takes with nothing beside it."""
    return fmean(record.latency_s or 0.0 for record in play("arrival", [arrival(n, kind, 20.0 * n) for n in range(4)]))


@cache
def capacity() -> float:
    """Work a second where there is always one more to do."""
    kinds = ["long" if number % 5 == 0 else "short" for number in range(60)]
    span_s = max(record.done_s or 0.0 for record in play("arrival", [arrival(n, k, 0.0) for n, k in enumerate(kinds)]))
    return sum(map(work, kinds)) / span_s


class Outcome(msgspec.Struct):
    goodput: float
    """Work done in time, as a share of capacity."""
    accepted: int
    late: int


@cache
def overload(order: str, seed: int) -> Outcome:
    """A Poisson load with deadlines, after a burst without, from which the server learns its costs."""
    rng = random.Random(seed)
    rate = OVERLOAD * capacity() / fmean((work("long"), *[work("short")] * 4))
    load = [arrival(number, "long" if number % 5 == 0 else "short", 0.0) for number in range(BEFORE)]
    at_s = began_s = 2 * BEFORE * alone("long")
    for number in range(BEFORE, BEFORE + JOBS):
        at_s += rng.expovariate(rate)
        kind = "long" if rng.random() < 0.2 else "short"
        load.append(arrival(number, kind, at_s, PATIENCE * alone(kind)))
    records = play(order, load)[BEFORE:]
    done = [record for record in records if record.code is None]
    in_time = [record for record in done if (record.latency_s or 0.0) <= PATIENCE * alone(record.kind)]
    span_s = max(at_s, *(record.done_s or 0.0 for record in in_time)) - began_s
    return Outcome(
        sum(work(record.kind) for record in in_time) / span_s / capacity(), len(done), len(done) - len(in_time)
    )


def test_almost_all_that_is_accepted_is_in_time() -> None:
    outcomes = [overload("deadline", seed) for seed in SEEDS]
    assert sum(one.late for one in outcomes) <= 0.01 * sum(one.accepted for one in outcomes)


@pytest.mark.parametrize("other", ["shortest", "arrival"])
def test_the_order_of_deadlines_gets_most_done_in_time(other: str) -> None:
    goodput = fmean(overload("deadline", seed).goodput for seed in SEEDS)
    assert goodput >= 0.8
    assert goodput > fmean(overload(other, seed).goodput for seed in SEEDS)


@pytest.mark.parametrize(
    "share",
    [
        ("pipeline.share=timeslice",),
        ("pipeline.share=turns",),
        ("stage.unet.cores=0", "stage.text.cores=1", "stage.vae.cores=1"),
    ],
)
def test_what_those_in_a_queue_are_told_is_near_the_truth_however_cores_are_shared(share: tuple[str, ...]) -> None:
    """The first burst teaches the costs; what the second one is told at once is compared with what came of it."""
    planned = plan(config.load(None, ["pipeline.order=arrival", *share], environ={}), CARD, machine(2))
    kinds = ["long" if number % 5 == 0 else "short" for number in range(60)]
    half = len(kinds) // 2
    load = [arrival(n, kind, 0.0 if n < half else 2 * half * alone("long")) for n, kind in enumerate(kinds)]
    records = simulate(planned, machine(2), CURVES, load).played.records
    for number in range(half + 10, len(kinds)):
        eta, actual = records[number].eta_s, records[number].latency_s
        assert eta is not None
        assert eta == pytest.approx(actual, rel=0.15)
