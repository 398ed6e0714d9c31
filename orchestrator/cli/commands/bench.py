"""`triptych bench`: throughput, latency and memory under a load, and what limits them."""

import argparse
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestrator import plot_file
from orchestrator.bench import plot, report
from orchestrator.bench.figures import Percentiles
from orchestrator.bench.measure import BenchTask, Measured, capacity, failures, measure
from orchestrator.bench.memory import TreeMemory
from orchestrator.bench.workload import DEFAULT, parse, read_mix
from orchestrator.cli import options
from orchestrator.cli import parser as read
from orchestrator.cli.connection import connect
from orchestrator.cli.options import Private, Remote
from orchestrator.cli.parser import Parser
from orchestrator.cli.terminal.units import memory
from stages.core import wire

_REDRAW_S = 0.1
_PIPE_COLUMNS = 120
_LIBRARIES = ("triptych", "openvino", "pyzmq", "numpy")


def arguments(parser: Parser) -> None:
    """Declare the options."""
    options.add_target(parser)
    parser.add_argument("--jobs", type=read.count, default=24, metavar="N", help="prompts of a round (default: 24)")
    parser.add_argument(
        "--arrivals",
        type=read.text,
        default="closed",
        metavar="HOW",
        help="closed:N keeps N prompts in flight, closed as many as the stages hold (default); poisson:RATE sends so "
        "many a second, whether or not the server keeps up; several levels: closed:1,2,4",
    )
    parser.add_argument(
        "--mix",
        type=read.path,
        metavar="FILE",
        help="TOML or JSON: a [[prompt]] table for each kind of prompt, with any field of a submit message, `kind` (a "
        "name) and `weight` (default: one prompt, the model's own steps)",
    )
    parser.add_argument("--rounds", type=read.count, default=3, metavar="N", help="rounds of each level (default: 3)")
    parser.add_argument(
        "--warm-up",
        type=read.layers,
        metavar="N",
        help="prompts that go before and do not count (default: as many as the stages hold)",
    )
    parser.add_argument("--seed", type=read.seed, default=0, metavar="N", help="of the load (default: 0)")
    parser.add_argument(
        "--plot", type=read.path, metavar="FILE", help="draw latency, occupancy and memory (.png, .svg, .pdf)"
    )
    options.add_json(parser, "one JSON object")


def run(args: argparse.Namespace) -> int:
    """Start or find the pipeline, play the load, and show what came of it."""
    levels = parse(args.arrivals)
    mix = read_mix(args.mix) if args.mix else DEFAULT
    target = options.target(args)
    plot_file.check(args.plot)
    began = time.monotonic()
    with ExitStack() as stack:
        screen = stack.enter_context(_ProgressBar())
        own = isinstance(target, Private)
        if own:  # from before the first process of it
            tree = stack.enter_context(TreeMemory(os.getpid(), descendants_only=True))
        client = stack.enter_context(connect(target, args.debug))
        status = client.wait_serving(lambda _: screen.tick("starting the pipeline", 0, 0))
        if not own:
            tree = stack.enter_context(TreeMemory(status.hub_pid, descendants_only=False))
        started = time.monotonic()
        task = BenchTask(
            mix=mix,
            levels=levels,
            jobs=args.jobs,
            rounds=args.rounds,
            warm_up=capacity(status) if args.warm_up is None else args.warm_up,
            seed=args.seed,
        )
        measured = measure(client, task, status, screen.tick)
    first = measured.first_image
    found = report.document(
        measured,
        first_image_s=first - began if own and first is not None else None,
        peak_pss_bytes=tree.peak_bytes,
        config=_config(args, target, task, measured.after),
        versions=_versions(),
    )
    if own:
        found["start_s"] = round(started - began, 6)
    figures = [report.level_figures(level, measured.after) for level in measured.levels]
    if args.json:
        print(json.dumps(found))
    else:
        _show(measured, figures, found)
    if args.plot:
        model = measured.after.model
        rounds = f"{args.rounds} rounds of " if args.rounds > 1 else ""
        title = f"{model}: {rounds}{args.jobs} prompts, stages share cores by {measured.after.share}"
        plot.draw(args.plot, title, measured, figures, tree.samples)
    wrong = failures(measured.levels)
    for code, message in wrong.items():
        print(f"triptych: error: prompts failed with {code}: {message}", file=sys.stderr)
    return int(bool(wrong))


class _ProgressBar:
    """A bar on the terminal (stderr), drawn when there is something new, at most ten times a second."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            disable=not sys.stderr.isatty(),
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("", total=None)
        self._drawn = 0.0

    def __enter__(self) -> "_ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tick(self, what: str, done: int, total: int) -> None:
        """Show what is done now, and how far it is."""
        now = time.monotonic()
        if now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._progress.update(self._task, description=what, completed=done, total=total or None, refresh=True)


def _config(args: argparse.Namespace, target: Remote | Private, task: BenchTask, status: wire.Status) -> dict[str, Any]:
    """The settings that the figures depend on, as an object for programs."""
    return {
        "model": status.model,
        "share": status.share,
        "cores": status.cores,
        "stages": [
            {
                "name": stage.name,
                "cores": stage.cores_seen,
                "threads": stage.threads,
                "streams": stage.streams,
                "max_rows": stage.max_rows,
                "depth": stage.depth,
                "precision": stage.precision,
            }
            for stage in status.stages
        ],
        "arrivals": args.arrivals,
        "mix": str(args.mix) if args.mix else "default",
        "jobs": task.jobs,
        "rounds": task.rounds,
        "warm_up": task.warm_up,
        "seed": task.seed,
        "target": target.address if isinstance(target, Remote) else str(target.config or "embedded"),
        "set": list(args.set),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _show(measured: Measured, figures: list[report.LevelFigures], found: dict[str, Any]) -> None:
    """Tables for people: the levels, the kinds of prompts where there are several, the stages."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    console.print(_levels(figures))
    top = report.best(figures)
    if len(figures) > 1:
        console.print(f"below: {top.arrivals}, the level with the most images a second")
    console.print(_stages(top, measured.after))
    hop, peak = measured.after.hop_us, found["peak_pss_bytes"]
    lines = []
    if top.figures.all.an_image is not None:
        lines.append(f"queue: {_seconds(top.figures.all.an_image.queue_s)} an image on average")
    if hop.p50 is not None and hop.p99 is not None:
        lines.append(f"hops: p50 {hop.p50:.0f} us, p99 {hop.p99:.0f} us")
    if peak is not None:
        lines.append(f"memory: at most {memory(peak)} (PSS of all its processes)")
    if found["first_image_s"] is not None:
        lines.append(f"first image: {found['first_image_s']:.1f} s after the start")
    for line in lines:
        console.print(Text(line))
    console.print(Text(f"limit: {top.bottleneck.why}"))
    if top.bottleneck.change:
        console.print(Text(f"would help most: {top.bottleneck.change}"))


def _levels(figures: list[report.LevelFigures]) -> Table:
    several = any(len(level.figures.kinds) > 1 for level in figures)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arrivals", no_wrap=True)
    if several:
        table.add_column("kind", no_wrap=True)
    for name in ("images/s", "rounds", "latency p50", "p90", "p99", "mean", "refused"):
        table.add_column(name, justify="right", no_wrap=True)
    for level in figures:
        kinds = {"all": level.figures.all, **(level.figures.kinds if several else {})}
        for kind, one in kinds.items():
            spread = level.images_per_s
            rounds = f"{spread.min:.2f} to {spread.max:.2f}" if kind == "all" and len(level.rounds) > 1 else ""
            refused = ", ".join(f"{number} {code}" for code, number in one.refused.items()) or "-"
            table.add_row(
                level.arrivals if kind == "all" else "",
                *((kind,) if several else ()),
                f"{one.images_per_s:.3f}",
                rounds,
                *_times(one.latency_s),
                refused,
            )
    return table


def _times(latency: Percentiles | None) -> list[str]:
    if latency is None:
        return ["-"] * 4
    return [_seconds(value) for value in (latency.p50, latency.p90, latency.p99, latency.mean)]


def _stages(level: report.LevelFigures, after: wire.Status) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("cores", "busy", "cores used", "an image", "outside infer", "embeds cached"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, stage in level.stages.items():
        cores = sorted({status.cores_seen for status in after.stages if status.kind == kind})
        table.add_row(
            Text(kind, style="bold"),
            " | ".join(cores),
            f"{stage.busy_share:.0%}",
            f"{stage.cores_used:.2f}",
            "-" if stage.an_image_s is None else _seconds(stage.an_image_s),
            "-" if stage.cpu_outside_infer_share is None else f"{stage.cpu_outside_infer_share:.1%}",
            "-" if stage.cache_hit_share is None else f"{stage.cache_hit_share:.0%}",
        )
    return table


def _seconds(value: float) -> str:
    return f"{1000 * value:.1f} ms" if value < 0.1 else f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
