"""Pictures of a measurement: latency against throughput, who was busy when, and memory. Needs the extra `plot`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.bench.measure import Level, Measured
from orchestrator.bench.memory import Sample
from orchestrator.bench.report import LevelFigures
from orchestrator.recording import Level as Fullness
from orchestrator.recording import Recording, forwards
from stages.core.errors import ConfigError
from stages.core.wire import KINDS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: dict[Kind, str] = {"text": "#4c72b0", "unet": "#dd8452", "vae": "#55a868"}
_GREY = "#555555"
_BINS = 240
_NAMES = {"p50": "median", "p90": "90 %", "p99": "99 %"}
_SHADES = {"p50": "#1b4965", "p90": "#5fa8d3", "p99": "#bc4749"}


def check() -> None:
    """Raise ConfigError if there is nothing to draw with; to be called before anything is measured."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; get it with: pip install 'triptych[plot]'")


def draw(path: Path, title: str, measured: Measured, figures: Sequence[LevelFigures], memory: Sequence[Sample]) -> None:
    """Draw everything into one file, whose ending names the format. Raises ConfigError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fullest = max(measured.levels, key=lambda level: level.played.span_s and _rate(level))
    figure = Figure(figsize=(9.0, 10.0), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_GREY)
    first, second, third = figure.subplots(3, 1, height_ratios=(1.25, 1.25, 0.8))
    if len(figures) > 1:
        _curve(first, figures)
    else:
        _distribution(first, measured.levels[0])
    if fullest.recording is not None:
        _occupancy(second, fullest.recording, f"{fullest.how}, the last round")
    _memory(third, memory)
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write the plot to {path}: {error}") from error


def _rate(level: Level) -> float:
    return sum(len(record.timings) for record in level.played.records) / level.played.span_s


def _curve(axes: "Axes", figures: Sequence[LevelFigures]) -> None:
    """Latency against throughput, a point a level."""
    done = [(level, level.figures.all.latency_s) for level in figures]
    known = [(level, latency) for level, latency in done if latency is not None]
    rates = [level.figures.all.images_per_s for level, _ in known]
    for name in ("p99", "p90", "p50"):
        seconds = [getattr(latency, name) for _, latency in known]
        axes.plot(rates, seconds, marker="o", markersize=4, linewidth=1.6, color=_SHADES[name], label=_NAMES[name])
    for (level, latency), rate in zip(known, rates, strict=True):
        axes.annotate(
            level.arrivals.partition(":")[2],
            (rate, latency.p50),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=_GREY,
        )
    unit = "in flight" if figures[0].arrivals.startswith("closed") else "prompts/s"
    axes.set(xlabel="images a second", ylabel="latency, s", title=f"Latency against throughput ({unit} at each point)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0.0, -0.08 * max((latency.p99 for _, latency in known), default=1.0)))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)


def _distribution(axes: "Axes", level: Level) -> None:
    """With one level: which share of the prompts was done within which time, by kind."""
    records = level.played.records
    kinds = list(dict.fromkeys(record.kind for record in records))
    for number, kind in enumerate(kinds):
        seconds = sorted(r.latency_s for r in records if r.kind == kind and r.latency_s is not None)
        if seconds:
            share = np.arange(1, len(seconds) + 1) / len(seconds)
            label = f"{kind} ({len(seconds)})"
            axes.step([seconds[0], *seconds], [0, *share], where="post", linewidth=1.6, color=f"C{number}", label=label)
    axes.set(xlabel="latency, s", ylabel="share of prompts done", title=f"Latency, {level.how}")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=9)


def _occupancy(axes: "Axes", recording: Recording, when: str) -> None:
    """A band for each kind of stage, as high as the share of the time that it was busy, and the queue above them."""
    span_s = (recording.ended_ns - recording.began_ns) / 1e9
    edges = np.linspace(0.0, span_s, _BINS + 1)
    for place, kind in enumerate(reversed(KINDS)):
        share = occupancy(recording, kind, _BINS)
        low = place * 1.15
        axes.stairs(low + share, edges, baseline=low, fill=True, color=COLOURS[kind], alpha=0.85)
        axes.axhline(low, color=_GREY, linewidth=0.5)
        axes.text(1.01, low + 0.5, f"{share.mean():.0%}", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks([place * 1.15 + 0.5 for place in range(len(KINDS))], [*reversed(KINDS)])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="seconds", title=f"Share of the time each stage was busy, {when}")
    axes.set_xlim(0, span_s)
    axes.set_ylim(0, len(KINDS) * 1.15)
    levels = [fact for fact in recording.facts if isinstance(fact, Fullness) and fact.at_ns >= recording.began_ns]
    if any(level.waiting for level in levels):
        queue = axes.twinx()
        times = [(level.at_ns - recording.began_ns) / 1e9 for level in levels]
        queue.step([*times, span_s], [*(v.waiting for v in levels), levels[-1].waiting], where="post", color="black")
        for line in queue.lines:
            line.set(linewidth=0.9, alpha=0.6)
        queue.set_ylim(bottom=0)
        queue.set_ylabel("images waiting", fontsize=9, labelpad=28)
        queue.spines["top"].set_visible(False)
        queue.tick_params(labelsize=8)


def occupancy(recording: Recording, kind: Kind, bins: int) -> NDArray[np.float64]:
    """[bins]: share of each part of the recording's time in which a stage of `kind` was at work."""
    edges = np.linspace(recording.began_ns, recording.ended_ns, bins + 1)
    busy = np.zeros(bins)
    until = recording.began_ns
    for forward in forwards(recording):
        if forward.kind == kind and forward.ended_ns > until:  # what overlaps counts once
            began, until = max(forward.began_ns, until), forward.ended_ns
            busy += np.clip(np.minimum(edges[1:], until) - np.maximum(edges[:-1], began), 0, None)
    return busy / max(1.0, float(edges[1] - edges[0]))


def _memory(axes: "Axes", samples: Sequence[Sample]) -> None:
    """PSS of the tree from its start on."""
    if samples:
        times = [sample.at - samples[0].at for sample in samples]
        sizes = [sample.pss_bytes / (1 << 20) for sample in samples]
        axes.plot(times, sizes, color="#6d597a", linewidth=1.4)
        axes.fill_between(times, sizes, color="#6d597a", alpha=0.15)
        peak = int(np.argmax(sizes))
        axes.annotate(
            f"peak {sizes[peak]:,.0f} MiB",
            (times[peak], sizes[peak]),
            xytext=(6, -2),
            textcoords="offset points",
            fontsize=9,
            va="top",
        )
        axes.set_xlim(0, times[-1])
        axes.set_ylim(0, 1.15 * max(*sizes, 1.0))
    axes.set(xlabel="seconds since the start", ylabel="PSS, MiB", title="Memory of all processes, loading included")
    axes.grid(alpha=0.25)
