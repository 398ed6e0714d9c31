"""The simulator's conditions that curves of single stages do not tell, learned from real runs. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.tuning.curves import typical
from orchestrator.tuning.score import steady
from orchestrator.tuning.simulate import HUB, Conditions, Simulated
from orchestrator.tuning.trial import LOAD, Trial
from stages.core.config import Share

Predict = Callable[[Trial, Conditions], Simulated]
"""Simulates a trial's candidate under the trial's load."""

MOST_INTERFERENCE = 1.0
MOST_HANDOVER_S = 0.02
_ROUNDS = 8


def calibrate(trials: Sequence[Trial], predict: Predict, start: Conditions) -> Conditions:
    """The conditions under which the simulator comes nearest to the runs.

    The hub's time for a message is measured, with the client's on top, which competes, too. Interference is searched
    for among the runs in which processes competed for cores, then what a handover costs among those in which they took
    turns. What no run tells of is as in `start`.
    """
    counted = [trial for trial in trials if trial.messages]
    if not counted:
        return start
    message_s = typical(
        (trial.cores_used[HUB] + trial.cores_used[LOAD]) * trial.seconds / trial.messages for trial in counted
    )

    def speed_ratio(conditions: Conditions, share: Share) -> float:
        """Speed of the simulated pipelines as a factor of that of the real ones; 1 is as fast."""
        return typical(
            steady(predict(trial, conditions).played.records, trial.in_flight).images_per_s / trial.score.images_per_s
            for trial in counted
            if trial.candidate.share == share
        )

    found = msgspec.structs.replace(start, message_s=message_s)
    shares = {trial.candidate.share for trial in counted}
    if "timeslice" in shares:
        interference = _bisect(
            MOST_INTERFERENCE,
            lambda value: speed_ratio(msgspec.structs.replace(found, interference=value), "timeslice"),
        )
        found = msgspec.structs.replace(found, interference=interference)
    if "turns" in shares:
        handover_s = _bisect(
            MOST_HANDOVER_S, lambda value: speed_ratio(msgspec.structs.replace(found, handover_s=value), "turns")
        )
        found = msgspec.structs.replace(found, handover_s=handover_s)
    return found


def _bisect(most: float, speed_ratio: Callable[[float], float]) -> float:
    """The value from 0 to `most` where `excess`, which falls, passes 1: by halving the interval."""
    low, high = 0.0, most
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if speed_ratio(middle) > 1 else (low, middle)
    return (low + high) / 2
