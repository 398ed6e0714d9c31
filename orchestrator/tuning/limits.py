"""What limits a pipeline, from one run of it. Pure."""

from orchestrator.tuning.simulate import HUB
from orchestrator.tuning.trial import Trial

_FULL = 0.9
"""Share of the cores in use from which on it is they that limit."""

_BUSY = 0.9
"""Share of the time from which on a stage counts as always at work."""


ALL_CORES = "the cores"
NONE = "no stage alone"


def limiter(trial: Trial, core_count: int) -> str:
    """What is at its limit: ALL_CORES, the name of a stage process, or NONE."""
    if sum(trial.cores_used.values()) >= _FULL * core_count:
        return ALL_CORES
    busiest = max(trial.busy, key=lambda name: trial.busy[name], default=None)
    return busiest if busiest is not None and trial.busy[busiest] >= _BUSY else NONE


def limit(trial: Trial, core_count: int) -> str:
    """One sentence, no more than the figures say."""
    used = sum(trial.cores_used.values())
    stages = {name: share for name, share in trial.cores_used.items() if name not in (HUB, "load")}
    parts = ", ".join(f"{name} {share / used:.0%}" for name, share in sorted(stages.items(), key=lambda kv: -kv[1]))
    rest = f"{parts}, hub {trial.cores_used[HUB] / used:.0%}, the load itself {trial.cores_used['load'] / used:.0%}"
    share = f"{used / core_count:.0%}"
    which = limiter(trial, core_count)
    if which == ALL_CORES:
        return f"{which}. {share} of their time is in use: {rest}."
    if which == NONE:
        most = max(trial.busy.values(), default=0.0)
        return (
            f"{which}: {share} of the cores' time is in use ({rest}), and no stage is at work more than {most:.0%} of "
            "the time. Jobs wait for each other between stages."
        )
    busy = f"{trial.busy[which]:.0%}"
    return f"{which}, which is at work {busy} of the time, while {share} of the cores' time is in use ({rest})."
