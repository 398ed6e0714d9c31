"""`triptych status`: what a running pipeline is doing, as a table or as JSON."""

import argparse
import json
import time
from collections.abc import Iterator

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli import options
from orchestrator.cli.parser import Parser
from orchestrator.cli.terminal.units import memory
from orchestrator.client import Client
from stages.core import wire

_EVERY_S = 1.0
_WIDE = 130
"""Width of a terminal, in characters, from which there is room for every column."""

_PIPE_COLUMNS = 160
"""Width of the table where there is no terminal to fit it into."""


def arguments(parser: Parser) -> None:
    """Declare the options."""
    options.add_connect(parser, "address of the pipeline (default: tcp://127.0.0.1:7801)")
    options.add_json(parser, "one JSON object (with --watch, one a second)")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Ask and show."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)
    with Client(options.address(args)) as client:
        status = client.status()
        if args.json or not args.watch:
            while True:
                if args.json:
                    print(as_json(status), flush=True)
                else:
                    console.print(table(status, console.width))
                if not args.watch:
                    return 0
                time.sleep(_EVERY_S)
                status = client.status()
        with Live(table(status, console.width), console=console, auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(_EVERY_S)
                live.update(table(client.status(), console.width), refresh=True)


def as_json(status: wire.Status) -> str:
    """The object that programs read."""
    fields = msgspec.to_builtins(status)
    del fields["type"]
    return json.dumps(fields)


def table(status: wire.Status, width: int) -> RenderableType:
    """A row for each stage process, in at most `width` columns if that is 80 or more, and what they share below."""
    wide = width >= _WIDE
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1) if wide else (0, 1, 0, 0))
    for name in ("stage", "pid", "state", "cores"):
        rows.add_column(name, no_wrap=True)
    if wide:
        rows.add_column("seen", no_wrap=True)
    for name in ("threads", "depth") if wide else ("thr",):
        rows.add_column(name, justify="right", no_wrap=True)
    for name in ("job", "step", "busy", "restarts" if wide else "died"):
        rows.add_column(name, justify="right", no_wrap=True)
    for name in ("RSS", "PSS", "outside") if wide else ("PSS", "outside"):
        rows.add_column(name, justify="right", no_wrap=True)
    for stage in status.stages:
        rows.add_row(*_cells(stage, wide))
    return Group(rows, *(Text(line) for line in _below(status)))


def _cells(stage: wire.StageStatus, wide: bool) -> Iterator[Text]:
    yield Text(stage.name, style="bold")
    yield Text(str(stage.pid or "-"))
    yield Text(stage.state, style=_COLOURS.get(stage.state, "yellow"))
    # Cores that differ from those asked for are what the whole thing must not do.
    strayed = "red" if stage.cores_seen not in ("", stage.cores_asked) else ""
    if wide:
        yield Text(stage.cores_asked)
        yield Text(stage.cores_seen or "-", style=strayed)
    else:
        yield Text(f"{stage.cores_asked}, not {stage.cores_seen}" if strayed else stage.cores_asked, style=strayed)
    yield Text(str(stage.threads))
    if wide:
        yield Text(str(stage.depth))
    yield Text((stage.job or "-")[:8])
    yield Text(f"{stage.step}/{stage.steps}" if stage.job else "-")
    yield Text(f"{round(100 * stage.busy_share)}%")
    yield Text(str(stage.restarts), style="red" if stage.restarts else "")
    if wide:
        yield Text(memory(stage.rss_bytes))
    yield Text(memory(stage.pss_bytes))
    outside = stage.cpu_outside_infer_share
    yield Text("-" if outside is None else f"{outside:.1%}")


_COLOURS = {"busy": "green", "idle": "dim"}


def _below(status: wire.Status) -> list[str]:
    hop = status.hop_us
    hops = "none yet" if hop.p50 is None or hop.p99 is None else f"p50 {hop.p50:.0f} us, p99 {hop.p99:.0f} us"
    return [
        f"{status.model}, {status.state} for {_duration(status.uptime_s)}, hub process {status.hub_pid}",
        *_precisions(status.stages),
        f"queue {status.queue.waiting} of {status.queue.limit}"
        f"   arena {status.arena.free} of {status.arena.slots} slots free   hops {hops}",
        *_limits(status),
    ]


def _limits(status: wire.Status) -> Iterator[str]:
    """The bottleneck now, and what would help, in two lines at most."""
    if status.bottleneck is not None:
        yield f"last {status.recent_s:.0f} s: {status.bottleneck.why}"
        if status.bottleneck.change:
            yield f"would help most: {status.bottleneck.change}"


def _precisions(stages: tuple[wire.StageStatus, ...]) -> Iterator[str]:
    """A line on what the stages that have loaded compute in."""
    by_precision: dict[str, list[str]] = {}
    for stage in stages:
        if stage.precision:
            by_precision.setdefault(stage.precision, []).append(stage.name)
    if by_precision:
        told = [f"{precision} ({', '.join(names)})" for precision, names in by_precision.items()]
        yield "computes in " + ", ".join(by_precision if len(told) == 1 else told)


def _duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {left:02} s" if minutes else f"{left} s"
