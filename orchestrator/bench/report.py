"""The figures of a benchmark as the object that programs read. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from orchestrator import bottleneck
from orchestrator.bench.figures import LoadFigures, figures
from orchestrator.bench.measure import LoadLevel, Measured
from orchestrator.bottleneck import Host
from stages.core import wire


class StageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of one kind of stage."""

    busy_share: float
    """Share of the time of the rounds in which it had a job in work, on average over its processes."""
    cores_used: float
    """Cores used by all its processes, CPU seconds a second."""
    an_image_s: float | None
    """Seconds an image spent there."""
    cpu_outside_infer_share: float | None
    """Share of the CPU time since load that was not inside a model forward."""
    cache_hit_share: float | None


class Spread(msgspec.Struct, frozen=True):
    """The least and the most of a figure over all rounds."""

    min: float
    max: float


class LevelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One level of load, all rounds together."""

    arrivals: str
    figures: LoadFigures
    images_per_s: Spread
    rounds: tuple[LoadFigures, ...]
    stages: dict[str, StageFigures]
    bottleneck: wire.Bottleneck


def level_figures(level: LoadLevel, after: wire.Status) -> LevelFigures:
    """The figures of a level; `after` is the status that came after all of it."""
    rounds = tuple(figures(one.played) for one in level.rounds)
    rates = [one.all.images_per_s for one in rounds]
    together = figures(level.played)
    return LevelFigures(
        arrivals=str(level.arrivals),
        figures=together,
        images_per_s=Spread(min(rates), max(rates)),
        rounds=rounds,
        stages={kind: _stage(kind, level, together, after) for kind in wire.KINDS},
        bottleneck=bottleneck.find(level.loads, Host.of(after)),
    )


def _stage(kind: wire.Kind, level: LoadLevel, together: LoadFigures, after: wire.Status) -> StageFigures:
    loads = [load for load in level.loads if load.kind == kind]
    processes = [stage for stage in after.stages if stage.kind == kind]
    outside = [s.cpu_outside_infer_share for s in processes if s.cpu_outside_infer_share is not None]
    hits = [stage.cache_hit_share for stage in processes if stage.cache_hit_share is not None]
    spent = together.all.an_image
    return StageFigures(
        busy_share=sum(load.busy_share for load in loads) / max(1, len(loads)),
        cores_used=sum(load.cores_used for load in loads),
        an_image_s=None if spent is None else {"text": spent.text_s, "unet": spent.unet_s, "vae": spent.vae_s}[kind],
        cpu_outside_infer_share=sum(outside) / len(outside) if outside else None,
        cache_hit_share=sum(hits) / len(hits) if hits else None,
    )


def best(levels: Sequence[LevelFigures]) -> LevelFigures:
    """The level with the most images a second."""
    return max(levels, key=lambda level: level.figures.all.images_per_s)


def document(
    measured: Measured,
    *,
    first_image_s: float | None,
    peak_pss_bytes: int | None,
    config: dict[str, Any],
    versions: dict[str, str],
) -> dict[str, Any]:
    """The object: the level with the most images a second at its top, all of them in `levels`."""
    levels = [level_figures(level, measured.after) for level in measured.levels]
    top = best(levels)
    found = top.figures.all
    whole = {
        "images_per_s": found.images_per_s,
        "latency_s": found.latency_s,
        "first_image_s": first_image_s,
        "stages": top.stages,
        "peak_pss_bytes": peak_pss_bytes,
        "config": config,
        "versions": versions,
        "arrivals": top.arrivals,
        "queue_s": None if found.an_image is None else found.an_image.queue_s,
        "hop_us": measured.after.hop_us,
        "refused": found.refused,
        "refused_share": found.refused_share,
        "spread": {"images_per_s": top.images_per_s},
        "bottleneck": top.bottleneck,
        "levels": levels,
    }
    rounded: dict[str, Any] = _rounded(msgspec.to_builtins(whole))
    return rounded


def _rounded(value: Any) -> Any:
    """The value with all figures rounded to a millionth: what is beyond that was not measured."""
    match value:
        case float():
            return round(value, 6)
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value
