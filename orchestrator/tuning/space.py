"""The configurations that a tuner chooses from: cores, how they are shared, threads, streams, rows. Pure."""

from collections.abc import Iterator

import msgspec

from orchestrator.tuning.machine import Topology
from stages.core import cores
from stages.core.config import Config, Share, StageConfig
from stages.core.model import ModelCard
from stages.core.wire import KINDS, Kind

MOST_ROWS = 32
"""Rows of the largest forward tried: more of them pay little, and each number of rows is compiled for itself."""

MOST_STREAMS = 16


class Placement(msgspec.Struct, frozen=True):
    """Settings of one kind of stage; the names are those of the configuration."""

    cores: str
    threads: int
    replicas: int = 1
    streams: int = 1
    max_rows: int = 2


class Candidate(msgspec.Struct, frozen=True):
    """One configuration of the pipeline."""

    share: Share
    text: Placement
    unet: Placement
    vae: Placement

    def of(self, kind: Kind) -> Placement:
        """The placement of a kind of stage."""
        placement: Placement = getattr(self, kind)
        return placement

    def apply(self, config: Config) -> Config:
        """The configuration with what the candidate says in it."""
        stages = {stage.kind: stage for stage in config.stages()}
        return msgspec.structs.replace(
            config,
            pipeline=msgspec.structs.replace(config.pipeline, share=self.share),
            stage=tuple(
                StageConfig(
                    kind=kind, implementation=stages[kind].implementation, **msgspec.structs.asdict(self.of(kind))
                )
                for kind in KINDS
            ),
        )

    def overrides(self) -> list[str]:
        """The candidate as `section.key=value`s of the command line."""
        keys = [f"pipeline.share={self.share}"]
        for kind in KINDS:
            placement = msgspec.structs.asdict(self.of(kind))
            keys += [f"stage.{kind}.{key}={value}" for key, value in placement.items()]
        return keys

    @property
    def family(self) -> tuple[str, ...]:
        """The key of a family: candidates that differ in streams and rows only have the same."""
        placements = (self.of(kind) for kind in KINDS)
        return (self.share, *(f"{each.cores}/{each.threads}/{each.replicas}" for each in placements))

    @property
    def layout(self) -> str:
        """The cores of every kind of stage, as text for people."""
        unet = self.unet
        if len({self.of(kind).cores for kind in KINDS}) == 1:
            side = f", vae {_threads(self.vae)}" if self.vae.threads != unet.threads else ""
            where = f"{self.share} on {unet.cores}{side}"
        else:
            where = f"{self.share}, " + " ".join(f"{kind} {self.of(kind).cores}" for kind in KINDS)
        return where + (f", {unet.replicas} U-Nets" if unet.replicas > 1 else "")

    @property
    def name(self) -> str:
        """The candidate's name: layout, streams and rows, as text for people."""
        streams = f"{self.unet.streams} stream{'' if self.unet.streams == 1 else 's'}"
        return f"{self.layout}, {streams}, {self.unet.max_rows} rows"


def _threads(placement: Placement) -> str:
    return f"{placement.threads} thread{'' if placement.threads == 1 else 's'}"


def of_config(config: Config, share: Share, threads: dict[Kind, int], core_sets: dict[Kind, str]) -> Candidate:
    """A configuration as a candidate: what it leaves open is as it was planned."""
    stages = {stage.kind: stage for stage in config.stages()}
    placements = {
        kind: Placement(core_sets[kind], threads[kind], stage.replicas, stage.streams, stage.max_rows)
        for kind, stage in stages.items()
    }
    return Candidate(share, **placements)


def candidates(topology: Topology, card: ModelCard) -> list[Candidate]:
    """The candidates that are worth a look on this machine."""
    per_job = card.rows(card.guidance_scale)
    rows = [rows for rows in doubling(max(2, per_job), MOST_ROWS)]
    found = []
    for share, text, unet, vae in _layouts(topology):
        for streams in doubling(1, min(unet.threads, MOST_STREAMS)):
            if unet.threads % streams:
                continue
            for most in rows:
                whole = msgspec.structs.replace(unet, streams=streams, max_rows=most)
                found.append(Candidate(share, text, whole, vae))
    return list(dict.fromkeys(found))


def doubling(first: int, last: int) -> Iterator[int]:
    """first, 2 first, 4 first ... up to `last`."""
    while first <= last:
        yield first
        first *= 2


def _layouts(topology: Topology) -> Iterator[tuple[Share, Placement, Placement, Placement]]:
    every = topology.cores
    granted = topology.granted
    # All share all cores: by turns, each with all of them; or as the kernel deals them out, the U-Net with all of them
    # and the others with all, half or one, so that they disturb it less.
    all_of_them = _placed(every, granted)
    yield "turns", all_of_them, all_of_them, all_of_them
    for threads in sorted({granted, max(1, granted // 2), 1}, reverse=True):
        side = _placed(every, threads)
        yield "timeslice", side, all_of_them, side
    # The U-Net has cores of its own; the others share the rest, or have each their own.
    for back in _parts(len(every)):
        front, rest = every[:-back], every[-back:]
        unet = _placed(front, min(len(front), granted))
        for share in ("timeslice", "turns") if back > 1 else ("timeslice",):
            yield share, _placed(rest, min(back, granted)), unet, _placed(rest, min(back, granted))
        if back > 1:
            yield "disjoint", _placed(rest[:1], 1), unet, _placed(rest[1:], min(back - 1, granted))
        if back > 1 and back == len(topology.nodes[-1]) and _can_be_copied(topology.nodes[:-1]):
            unets = _copied(front, len(topology.nodes) - 1)
            yield "disjoint", _placed(rest[:1], 1), unets, _placed(rest[1:], back - 1)


def _parts(cores_in_all: int) -> list[int]:
    """Numbers of cores for text encoder and decoder: from one to half of all."""
    eighths = {max(1, cores_in_all * part // 8) for part in (1, 2, 3, 4)}
    return sorted(part for part in eighths | {1} if part < cores_in_all)


def _placed(these: tuple[int, ...], threads: int) -> Placement:
    return Placement(cores.render(these), max(1, threads))


def _can_be_copied(nodes: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a U-Net on each of these nodes can be had: the plan deals cores out by number, in equal parts."""
    in_order = [core for node in nodes for core in node]
    return len(nodes) > 1 and in_order == sorted(in_order) and len({len(node) for node in nodes}) == 1


def _copied(these: tuple[int, ...], replicas: int) -> Placement:
    return Placement(cores.render(these), len(these) // replicas, replicas)
