"""The facts that passed the hub lately, and what can be told from them: who worked on what, and when.

The hub keeps facts in a bounded buffer (orchestrator.hub.recorder) and sends them as they are; making sense of them
costs the one who asked. Times are nanoseconds of CLOCK_MONOTONIC.
"""

from collections.abc import Iterator
from typing import TypeVar, assert_never

import msgspec

from stages.core import pipes, wire
from stages.core.errors import NoAnswer
from stages.core.route import STEPWISE
from stages.core.tasks import TaskName
from stages.core.wire import Kind


class _Fact(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what is recorded."""

    at_ns: int
    """When the hub recorded it."""


class Dispatched(_Fact, frozen=True):
    """A job went to a stage."""

    stage: str
    job: int
    task: TaskName
    slot: int
    """Index of the slot that the task writes to."""
    id: str
    """The prompt's id."""
    prompt: str
    """The beginning of the text."""
    index: int
    """Which image of its prompt it is."""
    submitted_ns: int


class Reported(_Fact, frozen=True):
    """A stage process said how a job stands."""

    stage: str
    pid: int
    report: pipes.Report


class Lost(_Fact, frozen=True):
    """A stage process ended."""

    stage: str
    pid: int


class Level(_Fact, frozen=True):
    """How full the pipeline was from then on."""

    waiting: int
    """Images that waited for their first stage."""
    slots: int
    """Slots of the arena in use."""


class Memory(_Fact, frozen=True):
    """Resident bytes of a process."""

    pid: int
    rss_bytes: int


Fact = Dispatched | Reported | Lost | Level | Memory


class Worker(msgspec.Struct, frozen=True):
    """A stage process that is alive."""

    name: str
    pid: int
    cores: str


class Recording(msgspec.Struct, frozen=True):
    """The facts of the last seconds, in order, and what is needed to name things."""

    began_ns: int
    ended_ns: int
    hub_pid: int
    workers: tuple[Worker, ...]
    facts: tuple[Fact, ...]


_decoder: msgspec.msgpack.Decoder[Recording] = msgspec.msgpack.Decoder(Recording)
encode = msgspec.msgpack.Encoder().encode


def decode(frame: bytes) -> Recording:
    """Read the frame of a `trace` answer. Raises NoAnswer if it is of another version."""
    try:
        return _decoder.decode(frame)
    except wire.UNREADABLE as error:
        raise NoAnswer(
            "the server's trace is of another version; use the `triptych` that it was started with"
        ) from error


class WorkSpan(msgspec.Struct, frozen=True):
    """A stage process worked on these jobs: a U-Net on one step of each, another stage on the one job."""

    stage: str
    pid: int
    began_ns: int
    ended_ns: int
    jobs: tuple[int, ...]
    steps: tuple[int, ...] = ()
    """The step that each job finished, where the stage goes in steps."""
    finished: bool = True
    """False for what was under way at the end, and for what nothing came of."""

    @property
    def kind(self) -> Kind:
        """The kind of stage."""
        return kind_of(self.stage)


class Visit(msgspec.Struct, frozen=True):
    """A job was in the hands of a stage, or waited for one, between two moments."""

    job: int
    kind: Kind
    at_work: bool
    began_ns: int
    ended_ns: int


def kind_of(stage: str) -> Kind:
    """The kind of a stage process, by its name."""
    kind = stage.partition("-")[0]
    return next(known for known in wire.KINDS if known == kind)


def jobs(recording: Recording) -> dict[int, Dispatched]:
    """The dispatch of each job that went to a stage, by its number: it says what the job is for."""
    return {fact.job: fact for fact in recording.facts if isinstance(fact, Dispatched)}


def forwards(recording: Recording) -> list[WorkSpan]:
    """All work that reaches into the time of the recording, clipped to it, in the order of its beginning."""
    together: dict[tuple[str, int, int, int], list[tuple[int, int]]] = {}
    found: list[WorkSpan] = []
    for fact in recording.facts:
        match fact:
            case Reported(stage=stage, pid=pid, report=pipes.Stepped() as stepped):
                forward = (stage, pid, stepped.began_ns, stepped.ended_ns)
                together.setdefault(forward, []).append((stepped.job, stepped.step))
            case _:
                pass
    for (stage, pid, began_ns, ended_ns), members in together.items():
        numbers, steps = zip(*members, strict=True)
        found.append(WorkSpan(stage, pid, began_ns, ended_ns, numbers, steps))
    found.extend(
        WorkSpan(stage, pid, began_ns, ended_ns, (job,), (), finished)
        for stage, pid, job, began_ns, ended_ns, finished in _stays(recording)
        if kind_of(stage) != STEPWISE
    )
    clipped = (_clip(forward, recording) for forward in found)
    return sorted((forward for forward in clipped if forward), key=lambda f: (f.began_ns, f.ended_ns))


def visits(recording: Recording) -> list[Visit]:
    """The stays of each job from its first stage on, without gaps or overlaps, clipped to the time of the recording."""
    stays: dict[int, list[tuple[Kind, int, int]]] = {}
    for stage, _, job, began_ns, ended_ns, _ in _stays(recording):
        stays.setdefault(job, []).append((kind_of(stage), began_ns, ended_ns))
    found = []
    for job, parts in stays.items():
        parts.sort(key=lambda part: part[1])
        before_ns: int | None = None
        for kind, began_ns, ended_ns in parts:
            if before_ns is not None:
                if began_ns > before_ns:
                    found.append(Visit(job, kind, False, before_ns, began_ns))
                began_ns = max(began_ns, before_ns)
            before_ns = max(began_ns, ended_ns)
            found.append(Visit(job, kind, True, began_ns, before_ns))
    clipped = (_clip(visit, recording) for visit in found)
    return sorted((visit for visit in clipped if visit), key=lambda v: (v.began_ns, v.ended_ns))


def _stays(recording: Recording) -> Iterator[tuple[str, int, int, int, int, bool]]:
    """(stage, pid, job, from, to, whether it was put down) of every job in every stage."""
    taken: dict[tuple[int, int], tuple[str, int]] = {}
    for fact in recording.facts:
        match fact:
            case Reported(at_ns, stage, pid, report):
                match report:
                    case pipes.Started():
                        taken[pid, report.job] = (stage, report.began_ns)
                    case pipes.Finished():
                        taken.pop((pid, report.job), None)
                        yield stage, pid, report.job, report.began_ns, report.ended_ns, True
                    case pipes.Fault() | pipes.Dropped():
                        if (pid, report.job) in taken:
                            yield stage, pid, report.job, taken.pop((pid, report.job))[1], at_ns, False
                    case pipes.Stepped():
                        pass
                    case _:
                        assert_never(report)
            case Lost(at_ns=at_ns, pid=pid):
                for key in [key for key in taken if key[0] == pid]:
                    stage, began_ns = taken.pop(key)
                    yield stage, pid, key[1], began_ns, at_ns, False
            case _:
                pass
    for (pid, job), (stage, began_ns) in taken.items():
        yield stage, pid, job, began_ns, recording.ended_ns, False


_Span = TypeVar("_Span", WorkSpan, Visit)


def _clip(span: _Span, recording: Recording) -> _Span | None:
    """The part of a span in the time of the recording; None if there is none."""
    began_ns, ended_ns = max(span.began_ns, recording.began_ns), min(span.ended_ns, recording.ended_ns)
    return msgspec.structs.replace(span, began_ns=began_ns, ended_ns=ended_ns) if began_ns <= ended_ns else None
