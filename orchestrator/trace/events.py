"""The Trace Event Format, as https://ui.perfetto.dev reads it: processes, tracks, slices, arrows, counters.

The format is https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times are whole
microseconds since an origin: of fractions, readers make overlaps.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from orchestrator import output

Event = dict[str, Any]


class Anchor(NamedTuple):
    """A slice that an arrow begins at, passes or ends at."""

    pid: int
    track: int
    began_ns: int
    ended_ns: int


def process(pid: int, name: str, place: int) -> list[Event]:
    """The name of a process, and its place among all."""
    return [_metadata(pid, 0, "process_name", name=name), _metadata(pid, 0, "process_sort_index", sort_index=place)]


def track(pid: int, number: int, name: str) -> list[Event]:
    """The name of a process's track; tracks stand in the order of their numbers."""
    return [
        _metadata(pid, number, "thread_name", name=name),
        _metadata(pid, number, "thread_sort_index", sort_index=number),
    ]


def lane(ends_ns: list[int], began_ns: int, ended_ns: int) -> int:
    """The number, from 1, of the first lane that is free at `began_ns`; `ends_ns` says until when each is taken.

    With a track a lane, slices of one track never overlap.
    """
    free = next((number for number, end_ns in enumerate(ends_ns) if end_ns <= began_ns), len(ends_ns))
    ends_ns[free : free + 1] = [ended_ns]
    return free + 1


class Sheet:
    """The events of a trace, in whole microseconds since `origin_ns`."""

    def __init__(self, origin_ns: int) -> None:
        self._origin = _microseconds(origin_ns)

    def slice(self, where: Anchor, category: str, name: str, args: Event) -> Event:
        """Something that lasted."""
        began, ended = self._since(where.began_ns), self._since(where.ended_ns)
        return {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": where.pid,
            "tid": where.track,
            "ts": began,
            "dur": ended - began,
            "args": args,
        }

    def arrows(self, number: int, stops: Sequence[Anchor]) -> Iterator[Event]:
        """A chain of arrows from stop to stop; `number` tells chains apart. One stop has none."""
        for place, stop in enumerate(stops if len(stops) > 1 else ()):
            first, last = place == 0, place == len(stops) - 1
            arrow: Event = {
                "ph": "s" if first else "f" if last else "t",
                "cat": "job",
                "name": "job",
                "id": number,
                "pid": stop.pid,
                "tid": stop.track,
                # Well inside of the slice, so that it is not taken for a neighbour's.
                "ts": (self._since(stop.began_ns) + self._since(stop.ended_ns)) // 2,
            }
            yield arrow if first else arrow | {"bp": "e"}

    def counter(self, pid: int, name: str, what: str, at_ns: int, value: float) -> Event:
        """A value from then on; readers show it as `name what`."""
        return {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": self._since(at_ns), "args": {what: value}}

    def _since(self, at_ns: int) -> int:
        return _microseconds(at_ns) - self._origin


def write(path: Path, events: list[Event]) -> None:
    """Write the events as a file, whole or not at all. Raises CannotWrite."""
    output.write(path, msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"}), "the trace")


def _metadata(pid: int, number: int, what: str, **args: object) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": number, "args": args}


def _microseconds(nanoseconds: int) -> int:
    return nanoseconds // 1000
