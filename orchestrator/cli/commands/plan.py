"""`triptych plan`: layouts for a machine that is not here, by simulation, from a profile that `triptych tune` wrote."""

import argparse
import json
import math
import sys

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator import plot_file
from orchestrator.cli import parser as read
from orchestrator.cli.options import add_json
from orchestrator.cli.parser import Parser
from orchestrator.cli.terminal.units import memory
from orchestrator.tuning import plot
from orchestrator.tuning.profile import Profile
from orchestrator.tuning.what_if import ASSUMPTIONS, LargerMachine, LayoutRow, compare

_EXTRAPOLATED = 8
"""Factor on the cores measured from which on the figures are called guesses."""


def arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("--cores", type=read.count, required=True, metavar="N", help="of the machine, without siblings")
    parser.add_argument("--numa", type=read.count, default=1, metavar="M", help="memory nodes (default: 1)")
    parser.add_argument(
        "--profile",
        type=read.path,
        required=True,
        metavar="FILE",
        help="as `triptych tune` writes it beside its outcome",
    )
    parser.add_argument(
        "--latency-cap", type=read.positive, default=math.inf, metavar="SECONDS", help="of p99 (default: none)"
    )
    parser.add_argument("--steps", type=read.count, metavar="N", help="of the prompts (default: the model's)")
    parser.add_argument(
        "--bandwidth",
        type=read.positive,
        default=1.0,
        metavar="RATIO",
        help="memory bandwidth for each core, beside that of the machine measured (default: 1)",
    )
    parser.add_argument("--plot", type=read.path, metavar="FILE", help="draw the comparison, as png, svg or pdf")
    add_json(parser, "one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare, and print; nothing is started."""
    plot_file.check(args.plot)
    profile = Profile.read(args.profile)
    machine = LargerMachine(args.cores, args.numa, args.bandwidth)
    steps = args.steps or profile.facts.steps
    console = Console(stderr=True, highlight=False)
    with console.status("simulating") as status:
        rows = compare(machine, profile, steps, args.latency_cap, lambda name: status.update(f"simulating: {name}"))
    if args.json:
        print(json.dumps(_json(machine, rows)))
    else:
        _show(args, profile, machine, rows, steps)
    if args.plot is not None:
        nodes = f" in {machine.numa} nodes" if machine.numa > 1 else ""
        title = f"SIMULATED: {profile.facts.model}, {_steps(steps)}, {machine.cores} cores{nodes}"
        plot.draw_layouts(args.plot, title, rows)
    if not any(row.keeps_cap for row in rows):
        print(f"triptych: error: no layout keeps p99 within {args.latency_cap:g} s, simulated", file=sys.stderr)
        return 1
    return 0


def _steps(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'} an image"


def _json(machine: LargerMachine, rows: list[LayoutRow]) -> dict[str, object]:
    return {
        "simulated": True,
        "assumptions": list(ASSUMPTIONS),
        "machine": machine._asdict(),
        "layouts": [msgspec.to_builtins(row) | {"overrides": row.candidate.overrides()} for row in rows],
    }


def _show(
    args: argparse.Namespace, profile: Profile, machine: LargerMachine, rows: list[LayoutRow], steps: int
) -> None:
    console = Console(highlight=False)
    nodes = f" in {machine.numa} memory nodes" if machine.numa > 1 else ""
    cap = f", p99 within {args.latency_cap:g} s" if args.latency_cap < math.inf else ""
    console.print(
        f"SIMULATED, nothing was run: {profile.facts.model}, {_steps(steps)}, {machine.cores} cores{nodes}{cap}"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("layout", "images/s", "p50", "p99", "memory", "the best of it (of one cell)"):
        words = name.startswith(("layout", "the"))
        table.add_column(
            name, justify="left" if words else "right", no_wrap=not name.startswith("the"), overflow="fold"
        )
    for row in rows:
        table.add_row(
            ("" if row.keeps_cap else "! ") + row.layout,
            f"{row.score.images_per_s:.3g}",
            f"{row.score.p50_s:.3g} s",
            f"{row.score.p99_s:.3g} s",
            memory(row.memory_bytes),
            row.candidate.name,
        )
    if not all(row.keeps_cap for row in rows):
        table.caption = "! over the cap"
        table.caption_justify = "left"
    console.print(table)
    console.print("Assumed:")
    for line in ASSUMPTIONS:
        console.print(f"- {line}")
    measured = max(point.threads for point in profile.points)
    if machine.cores > _EXTRAPOLATED * measured:
        console.print(
            f"- the profile knows {measured} threads at most: for {machine.cores} cores these are guesses, good for "
            "comparing layouts, and the best two or three are worth measuring there"
        )
