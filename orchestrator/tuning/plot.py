"""Pictures of what the tuner found, and of simulated plans. Needs the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import plot_file
from orchestrator.plot_file import KIND_COLOURS
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.profile import Profile
from orchestrator.tuning.report import headline, scores_of
from orchestrator.tuning.search import typical_p99, typical_rate
from orchestrator.tuning.space import Candidate
from orchestrator.tuning.tuner import TuningOutcome
from orchestrator.tuning.what_if import LayoutRow
from stages.core.route import STEPWISE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#555555"
_RED = "#bc4749"
_CYCLE = ("#1b4965", "#dd8452", "#55a868", "#8172b3", "#937860", "#da8bc3", "#4c72b0", "#ccb974")


def draw_tuning(path: Path, outcome: TuningOutcome, profile: Profile) -> None:
    """Draw throughput against latency of all runs, the stages alone, and the throughput with other numbers of cores."""
    figure = _figure(f"{profile.facts.model}, cores {profile.cores}: {headline(outcome)}", (10.0, 11.0))
    above, below = figure.subplots(2, 1, height_ratios=(1.3, 1.0))
    grid = below.get_subplotspec().subgridspec(1, 2)
    below.remove()
    _runs(above, outcome)
    _alone(figure.add_subplot(grid[0]), profile)
    _cores(figure.add_subplot(grid[1]), outcome)
    plot_file.save(figure, path)


def draw_layouts(path: Path, title: str, rows: Sequence[LayoutRow]) -> None:
    """Draw throughput and tail latency of simulated layouts, side by side."""
    figure = _figure(title, (10.0, 0.55 * len(rows) + 2.0))
    rate, tail = figure.subplots(1, 2, sharey=True)
    names = [row.layout for row in rows]
    rate.barh(names, [row.score.images_per_s for row in rows], color=KIND_COLOURS[STEPWISE], height=0.6)
    rate.bar_label(rate.containers[0], fmt=" %.3g", fontsize=9)
    rate.set_xlabel("images a second, simulated")
    rate.invert_yaxis()
    tail.barh(names, [row.score.p99_s for row in rows], color="#4c72b0", height=0.6)
    tail.bar_label(tail.containers[0], fmt=" %.3g", fontsize=9)
    tail.set_xlabel("p99 latency, seconds, simulated")
    for axes in (rate, tail):
        axes.margins(x=0.15)
        _plain(axes)
    plot_file.save(figure, path)


def _figure(title: str, size: tuple[float, float]) -> "Figure":
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=10, color=_GREY)
    return figure


def _runs(axes: "Axes", outcome: TuningOutcome) -> None:
    """Draw a line for each way to share and number of streams, along which the rows grow."""
    lines: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in dict.fromkeys(trial.candidate for trial in outcome.trials):
        lines.setdefault((candidate.layout, candidate.unet.streams), []).append(candidate)
    for number, ((layout, streams), members) in enumerate(sorted(lines.items())):
        members.sort(key=lambda candidate: candidate.unet.max_rows)
        colour = _CYCLE[number % len(_CYCLE)]
        points = [(_p99(outcome, each), _rate(outcome, each)) for each in members]
        label = f"{layout}, {streams} stream{'' if streams == 1 else 's'}"
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=5, linewidth=1.2)
        for (x, y), each in zip(points, members, strict=True):
            axes.annotate(f"{each.unet.max_rows}", (x, y), (4, 4), textcoords="offset points", fontsize=8, color=colour)
    axes.axvline(outcome.cap_s, color=_RED, linestyle="--", linewidth=1, label=f"cap, {outcome.cap_s:g} s")
    if outcome.best is not None:
        best = (_p99(outcome, outcome.best), _rate(outcome, outcome.best))
        axes.plot(*best, "*", color=_RED, markersize=17, label="chosen", zorder=5, markeredgecolor="white")
    axes.set_title("Measured; the numbers are rows of a forward", fontsize=10, loc="left")
    axes.set_xlabel("p99 latency, seconds")
    axes.set_ylabel("images a second")
    axes.set_ylim(0, 1.12 * max(_rate(outcome, trial.candidate) for trial in outcome.trials))
    axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False, loc="best")
    _plain(axes)


def _rate(outcome: TuningOutcome, candidate: Candidate) -> float:
    return typical_rate(scores_of(outcome.trials, candidate))


def _p99(outcome: TuningOutcome, candidate: Candidate) -> float:
    return typical_p99(scores_of(outcome.trials, candidate))


def _alone(axes: "Axes", profile: Profile) -> None:
    """Draw the cost of a row of the U-Net: measured as dots, by the law as lines."""
    points = [point for point in profile.points if point.kind == STEPWISE]
    law = Curves(profile.points).laws[STEPWISE]
    for number, (threads, streams) in enumerate(sorted({(p.threads, p.streams) for p in points})):
        mine = sorted((p for p in points if (p.threads, p.streams) == (threads, streams)), key=lambda p: p.rows)
        rows = [p.rows for p in mine]
        colour = _CYCLE[number % len(_CYCLE)]
        label = f"{threads} thread{'' if threads == 1 else 's'}, {streams} stream{'' if streams == 1 else 's'}"
        axes.plot(
            rows, [1000 * p.seconds / p.rows / streams for p in mine], "o", color=colour, markersize=5, label=label
        )
        axes.plot(
            rows, [1000 * law.seconds(threads, streams, r) / r / streams for r in rows], color=colour, linewidth=1
        )
    if points:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point.rows for point in points}), labels=sorted({str(p.rows) for p in points}, key=int))
    axes.set_ylim(bottom=0)
    axes.set_title("U-Net alone (dots) and the law fitted (lines)", fontsize=10, loc="left")
    axes.set_xlabel("rows of a forward")
    axes.set_ylabel("milliseconds a row")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _cores(axes: "Axes", outcome: TuningOutcome) -> None:
    numbers = [str(number) for number, _ in outcome.more_cores]
    rates = [rate for _, rate in outcome.more_cores]
    axes.bar(numbers, rates, color="#9fb8cc", width=0.6)
    if axes.containers:
        axes.bar_label(axes.containers[0], fmt="%.3g", fontsize=9)  # type: ignore[arg-type]
    axes.set_title("On other numbers of cores, simulated", fontsize=10, loc="left")
    axes.set_xlabel("cores")
    axes.set_ylabel("images a second")
    _plain(axes)


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
