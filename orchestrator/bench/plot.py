"""Pictures of a measurement: latency against throughput, who was busy when, and memory. Needs the extra `plot`."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import asdict
from numpy.typing import NDArray

from orchestrator import plot_file
from orchestrator.bench.measure import LoadLevel, Measured
from orchestrator.bench.memory import Sample
from orchestrator.bench.report import LevelFigures, best
from orchestrator.plot_file import KIND_COLOURS
from orchestrator.trace.recording import Level as Fullness
from orchestrator.trace.recording import Recording, forwards
from stages.core.wire import KINDS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#555555"
_BINS = 240
_BAND = 1.15
"""Distance from one stage's band to the next; a stage that is always busy is 1 high."""
_NAMES = {"p50": "median", "p90": "90 %", "p99": "99 %"}
_SHADES = {"p50": "#1b4965", "p90": "#5fa8d3", "p99": "#bc4749"}


def draw(path: Path, title: str, measured: Measured, figures: Sequence[LevelFigures], memory: Sequence[Sample]) -> None:
    """Draw everything into one file, whose ending names the format. Raises CannotWrite."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = dict(zip((told.arrivals for told in figures), measured.levels, strict=True))
    fullest = levels[best(figures).arrivals]
    figure = Figure(figsize=(9.0, 10.0), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_GREY)
    first, second, third = figure.subplots(3, 1, height_ratios=(1.25, 1.25, 0.8))
    if len(figures) > 1:
        _curve(first, figures)
    else:
        _distribution(first, measured.levels[0])
    if fullest.recording is not None:
        _occupancy(second, fullest.recording, f"{fullest.arrivals}, the last round")
    _memory(third, memory)
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    plot_file.save(figure, path)


def _curve(axes: "Axes", figures: Sequence[LevelFigures]) -> None:
    """Draw latency against throughput, a point a level."""
    done = [(level, level.figures.all.latency_s) for level in figures]
    known = [(level, latency) for level, latency in done if latency is not None]
    rates = [level.figures.all.images_per_s for level, _ in known]
    for name in ("p99", "p90", "p50"):
        seconds = [asdict(latency)[name] for _, latency in known]
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


def _distribution(axes: "Axes", level: LoadLevel) -> None:
    """Draw, for one level, the share of the prompts that was done within each time, by kind."""
    records = level.played.records
    kinds = list(dict.fromkeys(record.kind for record in records))
    for number, kind in enumerate(kinds):
        seconds = sorted(r.latency_s for r in records if r.kind == kind and r.latency_s is not None)
        if seconds:
            share = np.arange(1, len(seconds) + 1) / len(seconds)
            label = f"{kind} ({len(seconds)})"
            axes.step([seconds[0], *seconds], [0, *share], where="post", linewidth=1.6, color=f"C{number}", label=label)
    axes.set(xlabel="latency, s", ylabel="share of prompts done", title=f"Latency, {level.arrivals}")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=9)


def _occupancy(axes: "Axes", recording: Recording, when: str) -> None:
    """Draw a band for each kind of stage, as high as the share of the time that it was busy, and one for the queue."""
    span_s = (recording.ended_ns - recording.began_ns) / 1e9
    edges = np.linspace(0.0, span_s, _BINS + 1)
    bands: list[tuple[str, NDArray[np.float64], str]] = [
        (kind, occupancy(recording, kind, _BINS), KIND_COLOURS[kind]) for kind in reversed(KINDS)
    ]
    notes = [f"{share.mean():.0%}" for _, share, _ in bands]
    waiting = queue(recording, _BINS)
    if waiting.max() >= 1:
        bands.append(("waiting", waiting / waiting.max(), "#999999"))
        notes.append(f"up to {waiting.max():.0f}")
    for place, (_, share, colour) in enumerate(bands):
        low = place * _BAND
        axes.stairs(low + share, edges, baseline=low, fill=True, color=colour, alpha=0.85)
        axes.axhline(low, color=_GREY, linewidth=0.5)
        axes.text(1.01, low + 0.5, notes[place], transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks([place * _BAND + 0.5 for place in range(len(bands))], [name for name, *_ in bands])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="seconds", title=f"Share of the time each stage was busy, {when}")
    axes.set_xlim(0, span_s)
    axes.set_ylim(0, len(bands) * _BAND)


def queue(recording: Recording, bins: int) -> NDArray[np.float64]:
    """Images that waited for their first stage, at most, in each part of the recording's time, [bins]."""
    edges = np.linspace(recording.began_ns, recording.ended_ns, bins + 1)
    found = np.zeros(bins)
    levels = [(fact.at_ns, fact.waiting) for fact in recording.facts if isinstance(fact, Fullness)]
    for (from_ns, waiting), (to_ns, _) in pairwise([*levels, (recording.ended_ns, 0)]):
        touched = (edges[:-1] <= to_ns) & (edges[1:] > from_ns)
        found[touched] = np.maximum(found[touched], waiting)
    return found


def occupancy(recording: Recording, kind: Kind, bins: int) -> NDArray[np.float64]:
    """Share of each part of the recording's time in which a stage of `kind` was at work, [bins]."""
    edges = np.linspace(recording.began_ns, recording.ended_ns, bins + 1)
    busy = np.zeros(bins)
    until = recording.began_ns
    for forward in forwards(recording):
        if forward.kind == kind and forward.ended_ns > until:  # what overlaps counts once
            began, until = max(forward.began_ns, until), forward.ended_ns
            busy += np.clip(np.minimum(edges[1:], until) - np.maximum(edges[:-1], began), 0, None)
    return busy / max(1.0, float(edges[1] - edges[0]))


def _memory(axes: "Axes", samples: Sequence[Sample]) -> None:
    """Draw the PSS of the tree from its start on."""
    if samples:
        times = [sample.at - samples[0].at for sample in samples]
        sizes = [sample.pss_bytes / (1 << 20) for sample in samples]
        axes.plot(times, sizes, color="#6d597a", linewidth=1.4)
        axes.fill_between(times, sizes, color="#6d597a", alpha=0.15)
        peak = int(np.argmax(sizes))
        axes.annotate(
            f"peak {sizes[peak]:,.0f} MiB",
            (times[peak], sizes[peak]),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=9,
            ha="center" if 0.1 < times[peak] / max(times[-1], 1e-9) < 0.9 else "right",
        )
        axes.set_xlim(0, times[-1])
        axes.set_ylim(0, 1.25 * max(*sizes, 1.0))
    axes.set(
        xlabel="seconds since the measurement began", ylabel="PSS, MiB", title="Memory of all processes of the pipeline"
    )
    axes.grid(alpha=0.25)
