"""What limits a pipeline, from one run of it. Pure."""

from orchestrator.tuning.simulate import HUB
from orchestrator.tuning.trial import Trial

_FULL = 0.9
"""Share of the cores in use from which on it is they that limit."""

_BUSY = 0.9
"""Share of the time from which on a stage counts as always at work."""


def limit(trial: Trial, core_count: int) -> str:
    """One sentence, no more than the figures say."""
    used = sum(trial.cores_used.values())
    stages = {name: share for name, share in trial.cores_used.items() if name not in (HUB, "load")}
    parts = ", ".join(f"{name} {share / used:.0%}" for name, share in sorted(stages.items(), key=lambda kv: -kv[1]))
    rest = f"{parts}, hub {trial.cores_used[HUB] / used:.0%}, the load itself {trial.cores_used['load'] / used:.0%}"
    if used >= _FULL * core_count:
        return f"the cores. {used / core_count:.0%} of their time is in use: {rest}."
    busiest = max(trial.busy, key=lambda name: trial.busy[name], default=None)
    if busiest is not None and trial.busy[busiest] >= _BUSY:
        return (
            f"{busiest}, which is at work {trial.busy[busiest]:.0%} of the time, while {used / core_count:.0%} of the "
            f"cores' time is in use ({rest})."
        )
    return (
        f"no stage alone: {used / core_count:.0%} of the cores' time is in use ({rest}), and no stage is at work more "
        f"than {max(trial.busy.values(), default=0.0):.0%} of the time. Jobs wait for each other between stages."
    )
