"""What curves of single stages do not tell, learned from real runs. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.tuning.curves import typical
from orchestrator.tuning.score import steady
from orchestrator.tuning.simulate import HUB, Conditions, Simulated
from orchestrator.tuning.trial import LOAD, Trial

Predict = Callable[[Trial, Conditions], Simulated]
"""What the simulator makes of a trial's candidate under its load."""

MOST_INTERFERENCE = 1.0
_ROUNDS = 7


def calibrate(trials: Sequence[Trial], predict: Predict, start: Conditions) -> Conditions:
    """The conditions under which the simulator comes nearest to the runs in which processes competed for cores.

    The hub's time for a message is measured, with the client's on top, which competes, too; interference is searched
    for. Without such runs, `start`.
    """
    counted = [trial for trial in trials if trial.messages]
    if not counted:
        return start
    message_s = typical(
        (trial.cores_used[HUB] + trial.cores_used[LOAD]) * trial.seconds / trial.messages for trial in counted
    )
    found = msgspec.structs.replace(start, message_s=message_s)
    competing = [trial for trial in counted if trial.candidate.share == "timeslice"]
    if not competing:
        return found

    def excess(interference: float) -> float:
        """How much faster the simulated pipeline is than the real ones, 1 being as fast."""
        conditions = msgspec.structs.replace(found, interference=interference)
        return typical(
            steady(predict(trial, conditions).played.records, trial.in_flight).images_per_s / trial.score.images_per_s
            for trial in competing
        )

    low, high = 0.0, MOST_INTERFERENCE
    for _ in range(_ROUNDS):  # the more interference, the slower: halve the interval
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 1 else (low, middle)
    return msgspec.structs.replace(found, interference=(low + high) / 2)
