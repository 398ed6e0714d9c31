"""Scores of loads, of which only the steady part counts. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from orchestrator.bench.drive import Record
from orchestrator.plan import Plan
from stages.core.errors import StageFault
from stages.core.route import STEPWISE

WARM_UP_TURNS = 2
"""Turns of the prompts in flight that pass before a closed loop counts: the pipeline fills, and what is still to be
compiled is."""


class Score(msgspec.Struct, frozen=True):
    """Images a second, and seconds from when a prompt was due until its image was there."""

    images_per_s: float
    p50_s: float
    p95_s: float
    p99_s: float


def fill(plan: Plan) -> int:
    """Prompts in flight that keep the whole pipeline at work: those in forwards, one before them and one behind.

    More would only wait, and make every latency longer.
    """
    return sum(spec.depth - 1 for spec in plan.stages if spec.kind == STEPWISE) + 2


def steady(records: Sequence[Record], in_flight: int | None) -> Score:
    """The score of a load of one image a prompt.

    Of a closed loop, the first WARM_UP_TURNS times `in_flight` images and the last `in_flight` do not count: while they
    are made, the pipeline fills and empties. Raises StageFault if a prompt failed.
    """
    if failed := [record for record in records if record.code is not None]:
        raise StageFault(f"{len(failed)} of {len(records)} prompts failed: {failed[0].message}")
    done = sorted((record.done_s or 0.0, record.latency_s or 0.0) for record in records)
    first, last = WARM_UP_TURNS * (in_flight or 0), len(done) - (in_flight or 0)
    if last - first < 2:
        first, last = 0, len(done)
    counted = done[first:last]
    span_s = counted[-1][0] - (done[first - 1][0] if first else 0.0)
    p50, p95, p99 = np.percentile([latency for _, latency in counted], (50, 95, 99), method="linear").tolist()
    return Score(len(counted) / span_s, p50, p95, p99)
