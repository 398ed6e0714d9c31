"""Triptych beside its peers, in one interleaved run: the same pictures from the same weights by all.

    python -m benchmarks.peers                          the embedded model
    python -m benchmarks.peers --model sd15             another; also lcm, or an OpenVINO folder
    python -m benchmarks.peers --full                   the three of them
    python -m benchmarks.peers --alone                  one prompt at a time
    python -m benchmarks.peers --table FILE...          one table of what earlier runs wrote with --json

Baselines: OpenVINO GenAI as it comes (genai), with static shapes (genai-static), in two static processes pinned to
half of the cores each (genai-x2), optimum-intel (static), diffusers over torch. Triptych runs once as it comes and,
with --set, once more with those keys (triptych-tuned). Each has processes of its own; all have the same files,
precision, size, steps, guidance, schedule, prompts and seeds. Peers end at the pixels, Triptych also encodes the PNG.

All are loaded and work in turn, A B C C B A in each round. Where memory does not suffice for all at once, Triptych is
loaded with one peer at a time. The ratios are of one round each: their median, and from three rounds on its 95 %
bootstrap interval. In the end each one is started by itself: its peak PSS, from the start through loading to the end of
one run, and how near its picture is to Triptych's.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import models
from benchmarks.comparison import baselines, results
from benchmarks.comparison.measure import interleave, measure_memory
from benchmarks.comparison.pipe import WorkerLost
from benchmarks.comparison.results import Measured, Report, Task
from benchmarks.comparison.systems import Workers
from benchmarks.comparison.work import Work, native_precision, work
from stages.core import cores
from stages.core.errors import ConfigError, TriptychError
from stages.core.model import demo_folder

PACKAGES = ("triptych", "openvino", "openvino-genai", "optimum-intel", "diffusers", "torch")

USUAL = {"demo": (64, 25, 4.0), "sd15": (2, 20, 7.5), "lcm": (4, 4, 8.0)}
"""Images, steps and guidance scale where the command line has none."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the file."""
    parser = _parser()
    args = parser.parse_args(argv)
    if unknown := {*args.only, *args.without} - {*baselines.NAMES}:
        parser.error(f"there is no system {', '.join(sorted(unknown))}; see --help")
    if args.full and args.model:
        parser.error("--full names the models; leave --model out")
    if args.images is not None and args.images < 1:
        parser.error("--images: at least 1")
    console = Console(stderr=True, highlight=False)
    try:
        if args.table:
            report = results.read(args.table)
        else:
            report = Report(machine=machine(), versions=versions(), measured=[])
            for model in ("demo", "sd15", "lcm") if args.full else (args.model or "demo",):
                task, done = prepare(model, args)
                report.measured.append(found := Measured(task=task))
                for _ in measure(found, done, args, console):
                    if args.json:  # at every step, so that what ends us later costs only its own
                        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    except KeyboardInterrupt:
        sys.exit(130)
    except TriptychError as error:
        print(f"peers: error: {error.message}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (WorkerLost, OSError, ValueError) as error:
        print(f"peers: error: {error}", file=sys.stderr)
        sys.exit(1)
    print("\n".join(rendered(report)))


def prepare(model: str, args: argparse.Namespace) -> tuple[Task, Work]:
    """The task and the work for a model. Raises TriptychError where it cannot be run, or is missing."""
    images, steps, guidance = USUAL.get(model, (4, None, None))
    folder, torch = Path(model), args.torch
    if model in USUAL:
        folder = demo_folder() if model == "demo" else models.openvino_folder(model)
        torch = torch or models.torch_folder(model)
    if model in USUAL and not folder.is_dir():
        raise ConfigError(f"{folder} is missing; `python -m benchmarks.models {model}` makes it")
    guidance = guidance if args.guidance is None else args.guidance
    done = work(folder, torch, args.steps or steps, guidance, args.precision or native_precision())
    return Task(
        model=model if model in USUAL else folder.name,
        images=args.images or images,
        steps=done.steps,
        guidance_scale=done.guidance_scale,
        width=done.width,
        height=done.height,
        precision=done.precision,
        alone=args.alone,
    ), done


def measure(found: Measured, done: Work, args: argparse.Namespace, console: Console) -> Iterator[None]:
    """Measure one model as asked; yields whenever something was found."""
    task = found.task
    console.print(str(task))
    peers = baselines.peers(task, done, args.only, args.without, console.print)
    ours = baselines.triptych_systems(task, done, args.set, args.without)
    groups = baselines.groups(ours, peers, done, console.print) if args.rounds else []
    by_itself = [] if args.no_memory else [*ours, *(Workers(peer, done) for peer in peers)]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(
            f"measuring {task.model}", total=len(by_itself) + (1 + 2 * args.rounds) * sum(map(len, groups))
        )

        def say(line: str) -> None:
            progress.console.print(f"  {line}")
            progress.advance(bar)

        for group in groups:
            yield from interleave(group, found, args.rounds, say)
        # Last, because Triptych's first start with a model tests its numerics, and later ones remember the outcome.
        yield from measure_memory(by_itself, found, say)


def rendered(report: Report) -> list[str]:
    """All tables, with what made them."""
    lines = []
    for found in report.measured:
        lines += [str(found.task), "", *results.table(found), ""]
        if busy := {name: share for name, share in found.idle_share.items() if share > 0.02}:
            told = ", ".join(f"{name} {share:.0%}" for name, share in busy.items())
            lines += [f"While another one worked, these used part of a core: {told}.", ""]
    packages = ", ".join(f"{package} {number}" for package, number in report.versions.items())
    return [*lines, f"{report.machine}; {packages}."]


def machine() -> str:
    """The processor, and how much of it this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{len(cores.allowed())} cores of {name}, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def versions() -> dict[str, str]:
    """The packages that took part, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(baselines.NAMES)
    parser.add_argument("--model", help=f"{', '.join(USUAL)}, or an OpenVINO folder (default: demo)")
    parser.add_argument("--full", action="store_true", help="all of those, one after the other")
    parser.add_argument("--torch", type=Path, help="the same weights for diffusers, where --model is a folder")
    parser.add_argument("--images", type=int, help="in each run (default: demo 64, sd15 2, lcm 4)")
    parser.add_argument("--rounds", type=int, default=3, help="two runs of each in every round (default: 3)")
    parser.add_argument("--steps", type=int, help="default: demo 25, sd15 20, lcm 4")
    parser.add_argument("--guidance", type=float, help="default: demo 4, sd15 7.5, lcm 8")
    parser.add_argument("--precision", choices=("bf16", "f32"), help="default: the CPU's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for triptych-tuned")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"this peer only; of: {names}")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave this system out")
    parser.add_argument("--alone", action="store_true", help="one prompt at a time: seconds, not images/s")
    parser.add_argument("--no-memory", action="store_true", help="leave out the starts for memory and pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="only print what such files hold")
    return parser


if __name__ == "__main__":
    main()
