"""A recording as a trace: what the whole pipeline did, stage by stage.

Each stage process is a process, named with its cores, with one track (with several streams as many as overlap):
slices are forwards, so a step of a U-Net that several jobs share is one slice. The hub is a process, too: it has the
counters, and lanes with one job after another, from stage to stage. Arrows lead each job from stage to stage. Times
count from the beginning of the recording.
"""

from collections.abc import Iterable, Iterator

from orchestrator.trace import events as trace_events
from orchestrator.trace.events import Anchor, Event, Sheet
from orchestrator.trace.recording import (
    Dispatched,
    Level,
    Lost,
    Memory,
    Recording,
    Visit,
    WorkSpan,
    forwards,
    jobs,
    kind_of,
    visits,
)
from stages.core.wire import KINDS

_HUB_ORDER = -1
"""The hub stands above the stages."""

_SHORTEST_NS = 3000
"""A shorter forward has no room within it for the end of an arrow, in whole microseconds."""


def events(recording: Recording) -> list[Event]:
    """The `traceEvents`: names of processes and tracks, slices, arrows, counters."""
    sheet = Sheet(recording.began_ns)
    work, known = forwards(recording), jobs(recording)
    processes = _processes(recording, work)
    stops = list(_stops(work))
    return [
        *_names(recording, processes, stops),
        *(_forward(forward, stop, known, sheet) for forward, stop in zip(work, stops, strict=True)),
        *_lives(visits(recording), known, recording.hub_pid, sheet),
        *_arrows(list(zip(work, stops, strict=True)), sheet),
        *_counters(recording, {recording.hub_pid, *processes}, sheet),
    ]


def _stops(work: list[WorkSpan]) -> Iterator[Anchor]:
    """The place of every forward: on the first track of its process that is free."""
    ends_ns: dict[int, list[int]] = {}
    for forward in work:
        track = trace_events.lane(ends_ns.setdefault(forward.pid, []), forward.began_ns, forward.ended_ns)
        yield Anchor(forward.pid, track, forward.began_ns, forward.ended_ns)


def _processes(recording: Recording, work: list[WorkSpan]) -> dict[int, tuple[str, str]]:
    """(stage, what else is to be said) of every process that worked, or ended, or is alive."""
    ended = {
        fact.pid: (fact.stage, " (ended)")
        for fact in recording.facts
        if isinstance(fact, Lost) and fact.at_ns >= recording.began_ns
    }
    worked = {forward.pid: (forward.stage, " (ended)") for forward in work}
    return worked | ended | {worker.pid: (worker.name, f" on cores {worker.cores}") for worker in recording.workers}


def _names(recording: Recording, processes: dict[int, tuple[str, str]], stops: list[Anchor]) -> Iterator[Event]:
    """The hub, and the stages in pipeline order, with their tracks."""
    yield from trace_events.process(recording.hub_pid, "hub", _HUB_ORDER)
    for pid, (stage, more) in processes.items():
        yield from trace_events.process(pid, stage + more, KINDS.index(kind_of(stage)))
    for pid, track in sorted({(stop.pid, stop.track) for stop in stops}):
        yield from trace_events.track(pid, track, "forwards" if track == 1 else f"forwards ({track})")


def _forward(forward: WorkSpan, stop: Anchor, known: dict[int, Dispatched], sheet: Sheet) -> Event:
    names = [_job(job, known) for job in forward.jobs]
    if not forward.steps:
        name = _prompt(forward.jobs[0], known)
    elif len(forward.steps) == 1:
        name = f"step {forward.steps[0]}"
    else:
        name = f"{len(forward.steps)} jobs"
    args: Event = {"job": names[0]} if len(names) == 1 else {"jobs": names}
    if len(names) == 1:
        args["prompt"] = _prompt(forward.jobs[0], known)
    if forward.steps:
        args["steps"] = list(forward.steps)
    if not forward.finished:
        args["finished"] = False
    return sheet.slice(stop, "step" if forward.steps else "work", name, args)


def _lives(paths: list[Visit], known: dict[int, Dispatched], hub_pid: int, sheet: Sheet) -> Iterator[Event]:
    """A lane for each job that was in some stage, used again when it is done."""
    spans: dict[int, list[Visit]] = {}
    for visit in paths:
        spans.setdefault(visit.job, []).append(visit)
    ends_ns: list[int] = []
    for job, life in sorted(spans.items(), key=lambda item: item[1][0].began_ns):
        lane = trace_events.lane(ends_ns, life[0].began_ns, max(visit.ended_ns for visit in life))
        args = {"job": _job(job, known), "prompt": _prompt(job, known)}
        for visit in life:
            name = visit.kind if visit.at_work else f"waits for {visit.kind}"
            yield sheet.slice(Anchor(hub_pid, lane, visit.began_ns, visit.ended_ns), "job", name, args)
    for lane in range(1, len(ends_ns) + 1):
        yield from trace_events.track(hub_pid, lane, f"job {lane}")


def _arrows(work: list[tuple[WorkSpan, Anchor]], sheet: Sheet) -> Iterator[Event]:
    """One chain of arrows for each job, from its encoding to its first and its last step, and to its decoding."""
    chains: dict[int, list[Anchor]] = {}
    for forward, stop in work:
        for job in forward.jobs:
            chains.setdefault(job, []).append(stop)
    for number, chain in enumerate(chains.values(), start=1):
        turns = [
            stop
            for place, stop in enumerate(chain)
            if stop.ended_ns - stop.began_ns >= _SHORTEST_NS
            and not (
                0 < place < len(chain) - 1 and chain[place - 1].pid == stop.pid and chain[place + 1].pid == stop.pid
            )
        ]
        yield from sheet.arrows(number, turns)


def _counters(recording: Recording, processes: set[int], sheet: Sheet) -> Iterator[Event]:
    """Queue depth and slots as they changed; memory as it was looked at. What was before the beginning stands there."""
    last: Level | None = None
    for fact in recording.facts:
        match fact:
            case Level():
                if fact.at_ns >= recording.began_ns:
                    if last is not None:
                        yield from _level(last, recording, sheet)
                        last = None
                    yield from _level(fact, recording, sheet)
                else:
                    last = fact
            case Memory(at_ns, pid, rss_bytes) if at_ns >= recording.began_ns and pid in processes:
                yield sheet.counter(pid, "memory", "MiB", at_ns, round(rss_bytes / (1 << 20), 1))
            case _:
                pass
    if last is not None:
        yield from _level(last, recording, sheet)


def _level(level: Level, recording: Recording, sheet: Sheet) -> Iterable[Event]:
    at_ns = max(level.at_ns, recording.began_ns)
    yield sheet.counter(recording.hub_pid, "images", "waiting", at_ns, level.waiting)
    yield sheet.counter(recording.hub_pid, "arena slots", "in use", at_ns, level.slots)


def _job(job: int, known: dict[int, Dispatched]) -> str:
    """The prompt's id, and which of its images, as far as they are known."""
    sent = known.get(job)
    return f"number {job}" if sent is None else sent.id if sent.index == 0 else f"{sent.id}[{sent.index}]"


def _prompt(job: int, known: dict[int, Dispatched]) -> str:
    return known[job].prompt if job in known else f"job {job}"
