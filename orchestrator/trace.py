"""Traces for ui.perfetto.dev and chrome://tracing: what ran when, from the stamps that `trace` requests bring.

The format is https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Each stage process is a
process with two tracks a slot, one of jobs and one of steps; the arena is a process of its own with a track a slot;
arrows lead each image from stage to stage. Times are microseconds since the earliest stamp.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.core import wire
from stages.core.errors import ConfigError

_ARENA = 0
"""Process id of the arena's tracks; no process has it."""

_ORDER = ("hold", "work", "step")

Event = dict[str, Any]


class Entry(NamedTuple):
    """What one prompt left behind."""

    prompt: str
    id: str
    traced: wire.Traced


class _Piece(NamedTuple):
    """A slice and the prompt it was for."""

    slice: wire.Slice
    entry: int
    """Which of the entries: ids may be used again."""
    prompt: str
    id: str


class _Track(NamedTuple):
    """Where a slice is drawn; the order of tracks is the order of these."""

    process: int
    slot: int
    order: int
    """Of the kinds of slices: steps stand below the work they are part of."""
    lane: int


def write(path: Path, traced: Iterable[tuple[str, str, wire.Traced]]) -> None:
    """Write the trace of these (prompt, id, stamps), whole or not at all. Raises ConfigError."""
    store(path, events(traced))


def store(path: Path, events: list[Event]) -> None:
    """Write these events as a trace, whole or not at all. Raises ConfigError."""
    document = {"traceEvents": events, "displayTimeUnit": "ms"}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            temporary.write_bytes(msgspec.json.encode(document))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the trace to {path}: {error.strerror}") from error


def events(traced: Iterable[tuple[str, str, wire.Traced]]) -> list[Event]:
    """The `traceEvents`: names of processes and tracks, then slices, then arrows."""
    pieces = [
        _Piece(slice, entry, prompt, id) for entry, (prompt, id, stamps) in enumerate(traced) for slice in stamps.slices
    ]
    if not pieces:
        return []
    pieces.sort(key=lambda piece: (piece.slice.began_ns, piece.slice.ended_ns))
    origin = pieces[0].slice.began_ns
    placed = list(_place(pieces))
    numbers = {track: number for number, track in enumerate(sorted({track for track, _ in placed}), start=1)}
    names = dict(_names(placed, numbers))
    slices = [_slice(piece, track.process, numbers[track], origin) for track, piece in placed]
    return [*names.values(), *slices, *_arrows(placed, numbers, origin)]


def _place(pieces: list[_Piece]) -> Iterator[tuple[_Track, _Piece]]:
    """Give every piece, in order of time, a track that is free: slices of one track never overlap.

    A slot has one holder at a time, so one lane is enough; a second one would show that this was not so.
    """
    ends: dict[_Track, int] = {}
    for piece in pieces:
        slice = piece.slice
        lane = 0
        while True:
            track = _Track(_ARENA if slice.what == "hold" else slice.pid, slice.slot, _ORDER.index(slice.what), lane)
            if ends.get(track, slice.began_ns) <= slice.began_ns:
                break
            lane += 1
        ends[track] = slice.ended_ns
        yield track, piece


def _names(
    placed: list[tuple[_Track, _Piece]], numbers: dict[_Track, int]
) -> Iterator[tuple[tuple[int, int, str], Event]]:
    """Metadata by process, track and kind, so that each is there once. Stages stand in pipeline order."""
    for track, piece in placed:
        process, slice = track.process, piece.slice
        arena = process == _ARENA
        name = "arena" if arena else slice.stage
        kind = name.partition("-")[0]
        order = next((place for place, known in enumerate(wire.KINDS) if known == kind), len(wire.KINDS))
        yield _metadata(process, 0, "process_name", name=name)
        yield _metadata(process, 0, "process_sort_index", sort_index=order)
        label = f"{slice.stage} {track.slot}" if arena else f"slot {track.slot}"
        if slice.what == "step":
            label += " steps"
        if track.lane:
            label += f" ({track.lane + 1})"
        yield _metadata(process, numbers[track], "thread_name", name=label)
        yield _metadata(process, numbers[track], "thread_sort_index", sort_index=numbers[track])


def _metadata(process: int, track: int, what: str, **args: object) -> tuple[tuple[int, int, str], Event]:
    return (process, track, what), {"ph": "M", "name": what, "pid": process, "tid": track, "args": args}


def _slice(piece: _Piece, process: int, track: int, origin: int) -> Event:
    slice = piece.slice
    args: Event = {"job": piece.id, "prompt": piece.prompt, "index": slice.index, "slot": slice.slot}
    name = piece.prompt
    if slice.what == "step":
        args["step"] = slice.step
        name = f"step {slice.step}"
    return {
        "ph": "X",
        "cat": slice.what,
        "name": name,
        "pid": process,
        "tid": track,
        "ts": _microseconds(slice.began_ns - origin),
        "dur": _microseconds(slice.ended_ns - slice.began_ns),
        "args": args,
    }


def _arrows(placed: list[tuple[_Track, _Piece]], numbers: dict[_Track, int], origin: int) -> Iterator[Event]:
    """One chain of arrows for each image, through its work in the order it was done."""
    chains: dict[tuple[int, int], list[tuple[_Track, _Piece]]] = {}
    for track, piece in placed:
        if piece.slice.what == "work":
            chains.setdefault((piece.entry, piece.slice.index), []).append((track, piece))
    for number, chain in enumerate(chains.values(), start=1):
        for place, (track, piece) in enumerate(chain):
            if len(chain) < 2:
                continue
            first, last = place == 0, place == len(chain) - 1
            middle = (piece.slice.began_ns + piece.slice.ended_ns) // 2
            arrow: Event = {
                "ph": "s" if first else "f" if last else "t",
                "cat": "job",
                "name": "job",
                "id": number,
                "pid": track.process,
                "tid": numbers[track],
                # Well inside of the slice, so that it is not taken for a neighbour's.
                "ts": _microseconds(middle - origin),
            }
            yield arrow if first else arrow | {"bp": "e"}


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000
