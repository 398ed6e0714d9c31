"""A recording as a trace for ui.perfetto.dev and chrome://tracing: what the whole pipeline did, stage by stage.

Each stage process is a process, named with its cores, with one track (with several streams as many as overlap):
slices are forwards, so a step of a U-Net that several jobs share is one slice. The hub is a process, too: it has the
counters, and lanes with one job after another, from stage to stage. Arrows lead each job from stage to stage. Times
are whole microseconds since the beginning of the recording: of fractions, readers make overlaps.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.recording import (
    Forward,
    Level,
    Lost,
    Memory,
    Recording,
    Sent,
    Visit,
    forwards,
    jobs,
    kind_of,
    visits,
)
from stages.core.wire import KINDS

Event = dict[str, Any]

_HUB_ORDER = -1
"""The hub stands above the stages."""


def events(recording: Recording) -> list[Event]:
    """The `traceEvents`: names of processes and tracks, slices, arrows, counters."""
    work, paths, known = forwards(recording), visits(recording), jobs(recording)
    stages, processes = _tracks(work), _processes(recording, work)
    return [
        *_names(recording, processes, stages, work),
        *(_forward(forward, track, known, recording) for forward, track in zip(work, stages, strict=True)),
        *_lives(paths, known, recording),
        *_arrows(list(zip(work, stages, strict=True)), recording),
        *_counters(recording, {recording.hub_pid, *processes}),
    ]


def _tracks(work: list[Forward]) -> list[int]:
    """The track of every forward: the first of its process that is free, so that slices never overlap."""
    ends: dict[int, list[int]] = {}
    return [_lane(ends.setdefault(forward.pid, []), forward.began_ns, forward.ended_ns) for forward in work]


def _lane(ends: list[int], began_ns: int, ended_ns: int) -> int:
    """The number, from 1, of the first lane that is free at `began_ns`; `ends` says until when each is taken."""
    free = next((lane for lane, end_ns in enumerate(ends) if end_ns <= began_ns), len(ends))
    ends[free : free + 1] = [ended_ns]
    return free + 1


def _processes(recording: Recording, work: list[Forward]) -> dict[int, tuple[str, str]]:
    """(stage, what else is to be said) of every process that worked, or ended, or is alive."""
    ended = {
        fact.pid: (fact.stage, " (ended)")
        for fact in recording.facts
        if isinstance(fact, Lost) and fact.at_ns >= recording.began_ns
    }
    worked = {forward.pid: (forward.stage, " (ended)") for forward in work}
    return worked | ended | {worker.pid: (worker.name, f" on cores {worker.cores}") for worker in recording.workers}


def _names(
    recording: Recording, processes: dict[int, tuple[str, str]], tracks: list[int], work: list[Forward]
) -> Iterator[Event]:
    """Metadata: the hub, and the stages in pipeline order."""
    yield _metadata(recording.hub_pid, 0, "process_name", name="hub")
    yield _metadata(recording.hub_pid, 0, "process_sort_index", sort_index=_HUB_ORDER)
    for pid, (stage, more) in processes.items():
        yield _metadata(pid, 0, "process_name", name=stage + more)
        yield _metadata(pid, 0, "process_sort_index", sort_index=KINDS.index(kind_of(stage)))
    for pid, track in sorted({(forward.pid, track) for forward, track in zip(work, tracks, strict=True)}):
        yield _metadata(pid, track, "thread_name", name="forwards" if track == 1 else f"forwards ({track})")
        yield _metadata(pid, track, "thread_sort_index", sort_index=track)


def _forward(forward: Forward, track: int, known: dict[int, Sent], recording: Recording) -> Event:
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
    category = "step" if forward.steps else "work"
    return _slice(forward.pid, track, category, name, forward.began_ns, forward.ended_ns, args, recording)


def _lives(paths: list[Visit], known: dict[int, Sent], recording: Recording) -> Iterator[Event]:
    """A lane for each job that was in some stage, used again when it is done."""
    spans: dict[int, list[Visit]] = {}
    for visit in paths:
        spans.setdefault(visit.job, []).append(visit)
    ends: list[int] = []
    for job, life in sorted(spans.items(), key=lambda item: item[1][0].began_ns):
        lane = _lane(ends, life[0].began_ns, max(visit.ended_ns for visit in life))
        args = {"job": _job(job, known), "prompt": _prompt(job, known)}
        for visit in life:
            name = visit.kind if visit.at_work else f"waits for {visit.kind}"
            yield _slice(recording.hub_pid, lane, "job", name, visit.began_ns, visit.ended_ns, args, recording)
    for lane in range(1, len(ends) + 1):
        yield _metadata(recording.hub_pid, lane, "thread_name", name=f"job {lane}")
        yield _metadata(recording.hub_pid, lane, "thread_sort_index", sort_index=lane)


def _arrows(work: list[tuple[Forward, int]], recording: Recording) -> Iterator[Event]:
    """One chain of arrows for each job, from its encoding to its first and its last step, and to its decoding."""
    chains: dict[int, list[tuple[Forward, int]]] = {}
    for forward, track in work:
        for job in forward.jobs:
            chains.setdefault(job, []).append((forward, track))
    for number, chain in enumerate(chains.values(), start=1):
        stops = [
            (forward, track)
            for place, (forward, track) in enumerate(chain)
            if _microseconds(forward.ended_ns) - _microseconds(forward.began_ns) > 1
            and not (
                0 < place < len(chain) - 1
                and chain[place - 1][0].pid == forward.pid
                and chain[place + 1][0].pid == forward.pid
            )
        ]
        for place, (forward, track) in enumerate(stops if len(stops) > 1 else ()):
            first, last = place == 0, place == len(stops) - 1
            arrow: Event = {
                "ph": "s" if first else "f" if last else "t",
                "cat": "job",
                "name": "job",
                "id": number,
                "pid": forward.pid,
                "tid": track,
                # Well inside of the slice, so that it is not taken for a neighbour's.
                "ts": (_since(forward.began_ns, recording) + _since(forward.ended_ns, recording)) // 2,
            }
            yield arrow if first else arrow | {"bp": "e"}


def _counters(recording: Recording, processes: set[int]) -> Iterator[Event]:
    """Queue depth and slots as they changed; memory as it was looked at. What was before the beginning stands there."""
    last: Level | None = None
    for fact in recording.facts:
        match fact:
            case Level():
                if fact.at_ns >= recording.began_ns:
                    if last is not None:
                        yield from _level(last, recording)
                        last = None
                    yield from _level(fact, recording)
                else:
                    last = fact
            case Memory(at_ns, pid, rss_bytes) if at_ns >= recording.began_ns and pid in processes:
                yield _counter(pid, "memory, MiB", at_ns, round(rss_bytes / (1 << 20), 1), recording)
            case _:
                pass
    if last is not None:
        yield from _level(last, recording)


def _level(level: Level, recording: Recording) -> Iterable[Event]:
    at_ns = max(level.at_ns, recording.began_ns)
    yield _counter(recording.hub_pid, "images waiting", at_ns, level.waiting, recording)
    yield _counter(recording.hub_pid, "arena slots in use", at_ns, level.slots, recording)


def _counter(pid: int, name: str, at_ns: int, value: float, recording: Recording) -> Event:
    return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": _since(at_ns, recording), "args": {"value": value}}


def _slice(
    pid: int, track: int, category: str, name: str, began_ns: int, ended_ns: int, args: Event, recording: Recording
) -> Event:
    began = _since(began_ns, recording)
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": pid,
        "tid": track,
        "ts": began,
        "dur": _since(ended_ns, recording) - began,
        "args": args,
    }


def _metadata(pid: int, track: int, what: str, **args: object) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": track, "args": args}


def _job(job: int, known: dict[int, Sent]) -> str:
    """The prompt's id, and which of its images, as far as they are known."""
    sent = known.get(job)
    return f"number {job}" if sent is None else sent.id if sent.index == 0 else f"{sent.id}[{sent.index}]"


def _prompt(job: int, known: dict[int, Sent]) -> str:
    return known[job].prompt if job in known else f"job {job}"


def _since(at_ns: int, recording: Recording) -> int:
    return _microseconds(at_ns) - _microseconds(recording.began_ns)


def _microseconds(nanoseconds: int) -> int:
    return nanoseconds // 1000
