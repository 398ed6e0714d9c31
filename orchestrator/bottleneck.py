"""The bottleneck of a pipeline, and the one change that would help most. Pure.

A thing limits when it is busy all the time. Stages with cores of their own limit one by one; stages that share cores
compete for those, so there the cores limit, however busy each stage looks: what waits for a core is busy, too. Where
nothing is busy all the time, it is the prompts that come too slowly. What is said rests on four figures of each stage
(the share of time it was busy, the CPU time its process used, its cores, how long those were idle) and on nothing else;
gains are bounds, from counting work: they say what a change could bring at most.
"""

import math
from collections.abc import Sequence

import msgspec

from stages.core import cores
from stages.core.route import STEPWISE
from stages.core.wire import Bottleneck, Kind, StageStatus, Status

SATURATED = 0.85
"""Busy share from which a stage counts as always busy: the rest is hops, and the ends of what was measured."""

IDLE = 0.02
"""Busy share below which a stage counts as not at work."""

MAX_ROWS = 64
"""Rows of a forward, at most, that stages.core.config takes."""

_CONTENTION = 0.15
"""Share of the cores in use by other programs that explains why work is slow."""

_WORTHWHILE_GAIN = 1.05
"""Gain in throughput, as a factor, below which a change is not advised."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one stage process over some time."""

    name: str
    kind: Kind
    busy_share: float
    """Share of the time in which it had a job in work, 0 to 1."""
    cores_used: float
    """Cores that its process used, CPU seconds a second."""
    cores: frozenset[int]
    cores_idle: float
    """Its cores that nobody used, other programs included, CPU seconds a second."""
    threads: int
    streams: int
    max_rows: int


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The cores that the stages run on, and how they are shared."""

    share: str
    """`pipeline.share` of stages of the same cores."""
    cores: frozenset[int]
    """Cores that the pipeline may use."""
    quota: float = math.inf
    """CPU seconds a second that the cgroup grants; infinity where there is no limit."""

    @classmethod
    def of(cls, status: Status) -> "Host":
        """The host that a status tells of."""
        quota = math.inf if status.cpu_quota is None else status.cpu_quota
        return cls(share=status.share, cores=cores.parse(status.cores), quota=quota)

    def room(self, own: frozenset[int]) -> float:
        """CPU seconds a second that can be had of the cores `own`."""
        return max(1.0, min(len(own), self.quota))


def recent(stages: Sequence[StageStatus]) -> list[Load]:
    """The loads of the last seconds, as a status has them."""
    return [_load(stage, stage.recent_busy_share, stage.recent_cores_used, stage.recent_cores_idle) for stage in stages]


def between(before: Sequence[StageStatus], after: Sequence[StageStatus], seconds: float) -> list[Load]:
    """The loads in the `seconds` between two statuses; a process that was started meanwhile counts from its start."""
    known = {(stage.name, stage.pid): stage for stage in before}
    loads = []
    for stage in after:
        was = known.get((stage.name, stage.pid))
        busy_s = stage.busy_s - (was.busy_s if was else 0.0)
        cpu_s = stage.cpu_s - (was.cpu_s if was else 0.0)
        idle_s = stage.cores_idle_s - (was.cores_idle_s if was else stage.cores_idle_s)
        if seconds > 0:
            busy = min(1.0, max(0.0, busy_s / seconds))
            loads.append(_load(stage, busy, max(0.0, cpu_s / seconds), max(0.0, idle_s / seconds)))
    return loads


def _load(stage: StageStatus, busy_share: float, cores_used: float, cores_idle: float) -> Load:
    return Load(
        name=stage.name,
        kind=stage.kind,
        busy_share=busy_share,
        cores_used=cores_used,
        cores=cores.parse(stage.cores_asked),
        cores_idle=cores_idle,
        threads=stage.threads,
        streams=stage.streams,
        max_rows=stage.max_rows,
    )


def find(loads: Sequence[Load], host: Host) -> Bottleneck:
    """The bottleneck of a pipeline on `host`, from the loads of its stages over some time."""
    if not loads or max(load.busy_share for load in loads) < IDLE:
        return Bottleneck(limits=None, why="nothing was done", change="")
    groups: dict[frozenset[int], list[Load]] = {}
    for load in loads:
        groups.setdefault(load.cores, []).append(load)
    fullest = max(groups.values(), key=lambda group: _utilization(group, host))
    if _utilization(fullest, host) < SATURATED:
        return _prompts(loads)
    if len(fullest) > 1:
        return _shared(fullest, loads, host)
    return _alone(fullest[0], loads, host)


def _utilization(group: Sequence[Load], host: Host) -> float:
    """Share of the time in which the cores of a group cannot take more work."""
    if len(group) == 1:
        return group[0].busy_share
    if host.share == "turns":  # one at a time: the lease is always with somebody
        return min(1.0, sum(load.busy_share for load in group))
    return max(max(load.busy_share for load in group), _cores_used(group, host))


def _others(group: Sequence[Load], host: Host) -> float:
    """Share of the group's cores that other programs used, as far as no quota hides it."""
    own = group[0].cores
    if not own or host.quota < len(own):
        return 0.0
    used = sum(load.cores_used for load in group) + group[0].cores_idle
    return max(0.0, 1 - used / len(own))


def _contended(group: Sequence[Load], why: str, others: float) -> Bottleneck:
    """The bottleneck where other programs have the cores."""
    return Bottleneck(
        limits="other programs",
        why=f"other programs use {_percent(others)} of cores {cores.render(group[0].cores)}; {why}",
        change="let them run elsewhere, or give the stages cores that nothing else uses",
    )


def _cores_used(group: Sequence[Load], host: Host) -> float:
    """Share of the group's cores that was in use."""
    return min(1.0, sum(load.cores_used for load in group) / host.room(group[0].cores))


def _prompts(loads: Sequence[Load]) -> Bottleneck:
    return Bottleneck(
        limits="prompts",
        why=f"no stage is always busy: {_shares(loads)}; they wait for prompts",
        change="send more prompts at once",
    )


def _shared(group: Sequence[Load], loads: Sequence[Load], host: Host) -> Bottleneck:
    """The bottleneck where shared cores have no time left, or a stage that shares them is always at work."""
    own = group[0].cores
    names = cores.render(own)
    used = _cores_used(group, host)
    first = max(group, key=lambda load: (load.cores_used, load.busy_share))
    most = max(group, key=lambda load: load.busy_share)
    total = sum(load.cores_used for load in group)
    part = first.cores_used / total if total else 0.0
    if used < SATURATED and host.share != "turns":
        if (others := _others(group, host)) > _CONTENTION:
            return _contended(group, f"the stages {_percent(used)}: {_shares(loads)}", others)
        why = f"{most.name} is busy {_percent(most.busy_share)} of the time; {_shares(loads, but=most)}"
        why += f"; {_percent(used)} of cores {names} are in use"
        return Bottleneck(limits=most.name, why=why, change=_fill(most, used, host))
    why = f"{_percent(used)} of cores {names} are in use, {_percent(part)} of that by {first.name}; {_shares(loads)}"
    if spare := _spare(loads, host):
        change = f"give the stages cores {spare} as well, which no stage has"
    elif first.kind == STEPWISE:
        change = f"fewer steps (half of them: up to {1 / (1 - part / 2):.1f} times the images), or more cores"
    else:
        change = "more cores"
    return Bottleneck(limits=f"cores {names}", why=why, change=change)


def _alone(first: Load, loads: Sequence[Load], host: Host) -> Bottleneck:
    """The bottleneck where a stage with cores of its own is always at work."""
    used = _cores_used([first], host)
    why = f"{first.name} is busy {_percent(first.busy_share)} of the time; {_shares(loads, but=first)}"
    if used < SATURATED and (others := _others([first], host)) > _CONTENTION:
        return _contended([first], why, others)
    if spare := _spare(loads, host):
        return Bottleneck(limits=first.name, why=why, change=f"give {first.name} cores {spare}, which no stage has")
    groups = {load.cores for load in loads}
    givers = [
        load for load in loads if load is not first and load.busy_share < SATURATED and not load.cores & first.cores
    ]
    giver = min(
        (load for load in givers if len(load.cores) > 1 and load.busy_share * len(load.cores) < len(load.cores) - 1),
        key=lambda load: load.busy_share,
        default=None,
    )
    if giver is not None:
        mine = len(first.cores)
        change = f"give {first.name} a core of {giver.name} (up to {(mine + 1) / mine:.2f} times the images)"
        return Bottleneck(limits=first.name, why=why, change=change)
    work = sum(_busy_of(group, loads) * len(group) for group in groups)
    gain = first.busy_share * sum(len(group) for group in groups) / work if work else 1.0
    if gain > _WORTHWHILE_GAIN and givers:
        change = f'let the stages share their cores (pipeline.share = "timeslice": up to {gain:.2f} times the images)'
    elif used < SATURATED:
        change = _fill(first, used, host)
    else:
        change = "fewer steps, or more cores" if first.kind == STEPWISE else f"more cores for {first.name}"
    return Bottleneck(limits=first.name, why=why, change=change)


def _busy_of(group: frozenset[int], loads: Sequence[Load]) -> float:
    return min(1.0, sum(load.busy_share for load in loads if load.cores == group))


def _fill(stage: Load, used: float, host: Host) -> str:
    """Advice for a stage that is always at work with cores that are partly idle."""
    room = math.floor(host.room(stage.cores))
    if stage.threads < room:
        return f"let {stage.name} use more of its cores (stage.{stage.kind}.threads = {room})"
    if stage.kind == STEPWISE:
        if stage.streams == 1 and stage.threads > 1:
            return f"more forwards at once (stage.unet.streams = 2) to use the {_percent(1 - used)} that are idle"
        if stage.max_rows < MAX_ROWS:
            rows = min(2 * stage.max_rows, MAX_ROWS)
            return f"more rows in a forward (stage.unet.max_rows = {rows}) to use what is idle"
    return f"a second process (stage.{stage.kind}.replicas = 2) to use what is idle"


def _spare(loads: Sequence[Load], host: Host) -> str:
    """Advice on cores that may be used and that no stage has."""
    taken = frozenset[int]().union(*(load.cores for load in loads))
    return cores.render(host.cores - taken) if host.quota > len(taken) else ""


def _shares(loads: Sequence[Load], but: Load | None = None) -> str:
    """`unet-0 97 %, vae-0 41 %`, the busiest first."""
    ordered = sorted((load for load in loads if load is not but), key=lambda load: -load.busy_share)
    return ", ".join(f"{load.name} {_percent(load.busy_share)}" for load in ordered)


def _percent(share: float) -> str:
    return f"{share:.0%}"
