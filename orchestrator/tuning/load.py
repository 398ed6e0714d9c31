"""The load that candidates are compared under: a closed loop of prompts that are all different. Pure."""

import random

import msgspec

from orchestrator.bench.workload import Arrival
from orchestrator.tuning.score import WARM_UP_TURNS
from stages.core.wire import Submit

_WARM_STEPS = 6


def load(jobs: int, steps: int, first: int = 0) -> list[Arrival]:
    """`jobs` prompts of `steps` steps, numbered from `first`. All differ, as those of different people do."""
    return [
        Arrival(
            "tune",
            Submit(id=f"{number}", prompt=f"a photo of {number} ships in a storm", seed=number, steps=steps),
            None,
        )
        for number in range(first, first + jobs)
    ]


def warm_up(in_flight: int, steps: int) -> list[Arrival]:
    """Short prompts of different lengths, so that forwards of many numbers of rows are compiled before it counts."""
    rng = random.Random(0)
    arrivals = []
    for arrival in load(in_flight, steps):
        submit = msgspec.structs.replace(arrival.submit, steps=rng.randint(1, min(_WARM_STEPS, steps)))
        arrivals.append(msgspec.structs.replace(arrival, submit=submit))
    return arrivals


def jobs_for(in_flight: int, images_per_s: float, seconds: float) -> int:
    """Prompts of a load whose steady part takes about `seconds`.

    The steady part holds each of the prompts in flight equally often, twice at least: where rows are shared, images are
    done in bursts, and half a burst more or less at the end would be a difference of many per cent.
    """
    return in_flight * (WARM_UP_TURNS + 1 + max(2, round(images_per_s * seconds / in_flight)))
