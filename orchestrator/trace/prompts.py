"""Prompts as a trace: what was done for each when, slot by slot, from the stamps that `trace` requests bring.

Each stage process is a process with two tracks a slot, one of jobs and one of steps; the arena is a process of its own
with a track a slot; arrows lead each image from stage to stage. Times count from the earliest stamp.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator.trace import events as trace_events
from orchestrator.trace.events import Anchor, Event, Sheet
from stages.core import wire

_ARENA = 0
"""Process id of the arena's tracks; no process has it."""

_ORDER = ("hold", "work", "step")


class Entry(NamedTuple):
    """The stamps of one prompt, and its text."""

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
    """The place where a slice is drawn; the order of tracks is the order of these."""

    process: int
    slot: int
    order: int
    """Place among the kinds of slices: steps stand below the work they are part of."""
    lane: int


def write(path: Path, traced: Iterable[tuple[str, str, wire.Traced]]) -> None:
    """Write the trace of these (prompt, id, stamps), whole or not at all. Raises CannotWrite."""
    trace_events.write(path, events(traced))


def events(traced: Iterable[tuple[str, str, wire.Traced]]) -> list[Event]:
    """The `traceEvents`: names of processes and tracks, then slices, then arrows."""
    pieces = [
        _Piece(slice, entry, prompt, id) for entry, (prompt, id, stamps) in enumerate(traced) for slice in stamps.slices
    ]
    if not pieces:
        return []
    pieces.sort(key=lambda piece: (piece.slice.began_ns, piece.slice.ended_ns))
    sheet = Sheet(pieces[0].slice.began_ns)
    placed = list(_place(pieces))
    numbers = {track: number for number, track in enumerate(sorted({track for track, _ in placed}), start=1)}
    stops = [_stop(piece, track, numbers) for track, piece in placed]
    return [
        *_names(placed, numbers),
        *(_slice(piece, stop, sheet) for (_, piece), stop in zip(placed, stops, strict=True)),
        *_arrows(zip((piece for _, piece in placed), stops, strict=True), sheet),
    ]


def _place(pieces: list[_Piece]) -> Iterator[tuple[_Track, _Piece]]:
    """Give every piece, in order of time, a track that is free.

    A slot has one holder at a time, so one lane is enough; a second one would show that this was not so.
    """
    ends_ns: dict[tuple[int, int, int], list[int]] = {}
    for piece in pieces:
        slice = piece.slice
        where = (_ARENA if slice.what == "hold" else slice.pid, slice.slot, _ORDER.index(slice.what))
        yield _Track(*where, trace_events.lane(ends_ns.setdefault(where, []), slice.began_ns, slice.ended_ns)), piece


def _stop(piece: _Piece, track: _Track, numbers: dict[_Track, int]) -> Anchor:
    return Anchor(track.process, numbers[track], piece.slice.began_ns, piece.slice.ended_ns)


def _names(placed: list[tuple[_Track, _Piece]], numbers: dict[_Track, int]) -> Iterator[Event]:
    """The names of processes and tracks, each once. Stages stand in pipeline order."""
    stages = {track.process: piece.slice.stage for track, piece in placed if track.process != _ARENA}
    if any(track.process == _ARENA for track in numbers):
        yield from trace_events.process(_ARENA, "arena", len(wire.KINDS))
    for pid, stage in stages.items():
        kind = stage.partition("-")[0]
        place = next((place for place, known in enumerate(wire.KINDS) if known == kind), len(wire.KINDS))
        yield from trace_events.process(pid, stage, place)
    pools = {track: piece.slice.stage for track, piece in placed}
    for track, number in numbers.items():
        label = f"{pools[track] if track.process == _ARENA else 'slot'} {track.slot}"
        if _ORDER[track.order] == "step":
            label += " steps"
        if track.lane > 1:
            label += f" ({track.lane})"
        yield from trace_events.track(track.process, number, label)


def _slice(piece: _Piece, stop: Anchor, sheet: Sheet) -> Event:
    slice = piece.slice
    args: Event = {"job": piece.id, "prompt": piece.prompt, "index": slice.index, "slot": slice.slot}
    name = piece.prompt
    if slice.what == "step":
        args["step"] = slice.step
        name = f"step {slice.step}"
    return sheet.slice(stop, slice.what, name, args)


def _arrows(placed: Iterable[tuple[_Piece, Anchor]], sheet: Sheet) -> Iterator[Event]:
    """One chain of arrows for each image, through its work in the order it was done."""
    chains: dict[tuple[int, int], list[Anchor]] = {}
    for piece, stop in placed:
        if piece.slice.what == "work":
            chains.setdefault((piece.entry, piece.slice.index), []).append(stop)
    for number, chain in enumerate(chains.values(), start=1):
        yield from sheet.arrows(number, chain)
