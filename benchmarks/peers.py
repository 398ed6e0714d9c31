"""Triptych beside its peers, in one interleaved run: the same pictures from the same weights by all.

    python -m benchmarks.peers                          the embedded model
    python -m benchmarks.peers --model sd15             another; also lcm, or an OpenVINO folder
    python -m benchmarks.peers --full                   the three of them
    python -m benchmarks.peers --alone                  one prompt at a time
    python -m benchmarks.peers --table FILE...          one table of what earlier runs wrote with --json

Contenders: OpenVINO GenAI as it comes (genai), with static shapes (genai-static), in two static processes pinned to
half of the cores each (genai-x2), optimum-intel (static), diffusers over torch, and Triptych, once as it comes and,
with --set, once more with those keys (triptych-tuned). Each has processes of its own; all have the same files,
precision, size, steps, guidance, schedule, prompts and seeds. Peers end at the pixels, Triptych also encodes the PNG.

First each one is started alone: its peak PSS, from the start through loading to the end of one run, and how near its
picture is to Triptych's. Then all are loaded and work in turn, A B C C B A in each round. Where memory does not suffice
for all at once, Triptych is loaded with one peer at a time. The ratios are of one round each: their median, and from
three rounds on its 95 % bootstrap interval.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import models
from benchmarks.contest import results
from benchmarks.contest.contenders import PEERS, Contender, Peer, Triptych, Workers
from benchmarks.contest.measure import race, weigh
from benchmarks.contest.pipe import WorkerLost
from benchmarks.contest.results import Measured, Report, Task
from benchmarks.contest.work import Work, native_precision, work
from stages.core import cores
from stages.core.errors import ConfigError, TriptychError
from stages.core.model import demo_folder

OURS = ("triptych", "triptych-tuned")
PACKAGES = ("triptych", "openvino", "openvino-genai", "optimum-intel", "diffusers", "torch")

USUAL = {"demo": (64, 25, 4.0), "sd15": (2, 20, 7.5), "lcm": (4, 4, 8.0)}
"""Images, steps and guidance scale where the command line has none."""

PER_WEIGHT = 2.6
PER_PROCESS = 0.4e9
"""Memory of a process of a contender, to tell how many fit: so many times the weights on disk, and so many bytes."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the file."""
    parser = _parser()
    args = parser.parse_args(argv)
    if unknown := {*args.only, *args.without} - {*OURS, *(peer.name for peer in PEERS)}:
        parser.error(f"there is no contender {', '.join(sorted(unknown))}; see --help")
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
                report.measured.append(measure(model, args, console))
                if args.json:  # after each model, so that a later one's failure costs only its own
                    args.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    except TriptychError as error:
        print(f"peers: error: {error.message}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (WorkerLost, OSError, ValueError) as error:
        print(f"peers: error: {error}", file=sys.stderr)
        sys.exit(1)
    print("\n".join(rendered(report)))


def measure(model: str, args: argparse.Namespace, console: Console) -> Measured:
    """All that is asked about one model."""
    torch = args.torch
    if model in USUAL:
        folder = demo_folder() if model == "demo" else models.openvino_folder(model)
        torch = torch or models.torch_folder(model)
        if not folder.is_dir():
            raise ConfigError(f"{folder} is missing; `python -m benchmarks.models {model}` makes it")
    else:
        folder = Path(model)
    images, steps, guidance = USUAL.get(model, (4, None, None))
    task, card = work(
        folder,
        torch,
        args.steps or steps,
        guidance if args.guidance is None else args.guidance,
        args.precision or native_precision(),
    )
    found = Measured(
        task=Task(
            model=model if model in USUAL else card.name,
            images=args.images or images,
            steps=task.steps,
            guidance_scale=task.guidance_scale,
            width=task.width,
            height=task.height,
            precision=task.precision,
            alone=args.alone,
        )
    )
    console.print(str(found.task))
    peers = [peer for peer in PEERS if _runs(peer, task, args, console)]
    ours = _ours(task, found.task.images, args)
    groups = _groups(ours, peers, task, console)
    loads = len(ours) + len(peers)
    steps_of_bar = loads * (not args.no_memory) + args.rounds * 2 * sum(map(len, groups))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"measuring {model}", total=steps_of_bar)

        def say(line: str) -> None:
            progress.console.print(f"  {line}")
            progress.advance(bar)

        if not args.no_memory:
            weigh([*ours, *(Workers(peer, task) for peer in peers)], found, say)
        for group in groups if args.rounds else []:
            race(group, found, args.rounds, say)
    return found


def _runs(peer: Peer, task: Work, args: argparse.Namespace, console: Console) -> bool:
    """Whether a peer takes part; if not, a line says why, unless the command line does."""
    if peer.name in args.without or (args.only and peer.name not in args.only):
        return False
    reason = peer.missing() and f"to have it: {peer.missing()}"
    if args.alone and peer.processes > 1:
        reason = "one prompt would have a part of the cores only"
    if peer.processes > len(cores.allowed()):
        reason = "there is no core for each of its processes"
    if peer.name == "diffusers" and not reason and (task.torch is None or not Path(task.torch).is_dir()):
        model = args.model or "demo"
        reason = (
            f"it needs the weights for torch: `python -m benchmarks.models {model}`"
            if model in USUAL
            else "it needs the weights for torch: --torch FOLDER"
        )
    if reason:
        console.print(f"  {peer.name} left out: {reason}")
    return not reason


def _ours(task: Work, images: int, args: argparse.Namespace) -> list[Contender]:
    """Triptych, as it comes and as told."""
    overrides = {OURS[0]: [], **({OURS[1]: args.set} if args.set else {})}
    return [Triptych(name, task, images, keys) for name, keys in overrides.items() if name not in args.without]


def _groups(ours: list[Contender], peers: list[Peer], task: Work, console: Console) -> list[list[Contender]]:
    """Who is loaded at the same time."""
    weights = sum(file.stat().st_size for file in Path(task.model).glob("*/openvino_model.bin"))
    processes = len(ours) + sum(peer.processes for peer in peers)
    needed = processes * (PER_WEIGHT * weights + PER_PROCESS)
    available = psutil.virtual_memory().available
    if needed < 0.9 * available or len(peers) < 2:
        return [[*ours, *(Workers(peer, task) for peer in peers)]]
    console.print(
        f"  all together would need about {needed / 1e9:.0f} GB of memory and {available / 1e9:.0f} GB are free: "
        "Triptych is loaded with one peer at a time"
    )
    return [[*ours, Workers(peer, task)] for peer in peers]


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
    names = ", ".join([*(peer.name for peer in PEERS), *OURS])
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
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave this contender out")
    parser.add_argument("--alone", action="store_true", help="one prompt at a time: seconds, not images/s")
    parser.add_argument("--no-memory", action="store_true", help="leave out the starts for memory and pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="only print what such files hold")
    return parser


if __name__ == "__main__":
    main()
