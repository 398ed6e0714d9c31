"""`triptych tune`: measure the stages, simulate the pipeline, run the most promising, write the best down."""

import argparse
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator import output, plot_file
from orchestrator.cli import parser as read
from orchestrator.cli.options import add_config_argument, config_path
from orchestrator.cli.parser import Parser
from orchestrator.models.locate import card, locate
from orchestrator.tuning import config_file, plot, report
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.tuner import Tuner, TuningOutcome, TuningTask
from stages.core import config, cores
from stages.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import TaskID

_BUDGET_MIN = 5.0
_TRIALS = 12


def arguments(parser: Parser) -> None:
    """Declare the options."""
    add_config_argument(parser)
    parser.add_argument(
        "--latency-cap",
        type=read.positive,
        required=True,
        metavar="SECONDS",
        help="99 of 100 prompts must be done within this time",
    )
    parser.add_argument(
        "--budget", type=read.positive, default=_BUDGET_MIN, metavar="MINUTES", help="stop then (default: 5)"
    )
    parser.add_argument(
        "--trials", type=read.count, default=_TRIALS, metavar="N", help="run so many at most (default: 12)"
    )
    parser.add_argument(
        "--steps", type=read.count, metavar="N", help="of the prompts it is to be fast for (default: the model's)"
    )
    parser.add_argument(
        "-o", "--out", type=read.path, default=Path("tuned.toml"), metavar="FILE", help="the configuration"
    )
    parser.add_argument("--plot", type=read.path, metavar="FILE", help="draw the report, as png, svg or pdf")


def run(args: argparse.Namespace) -> int:
    """Tune, write `FILE`, `FILE.report.txt` and `FILE.profile.json`, and say what came of it.

    Exit status 1 if nothing that was run keeps the cap.
    """
    path, out = config_path(args), args.out
    if path is not None and out.resolve() == path.resolve():
        raise ConfigError(f"-o {out} is the configuration that is to be tuned; name another file")
    output.check(out, "the configuration")
    plot_file.check(args.plot)
    loaded = config.load(path, args.set)
    folder = locate(loaded)
    model = card(loaded)
    topology = Topology.here()
    steps = args.steps or model.steps
    budget_s = args.budget * 60
    task = TuningTask(path, tuple(args.set), loaded, model, topology, steps, args.latency_cap, budget_s, args.trials)
    try:
        with _show() as show:
            tuner = Tuner(task, show)
            show.say(_machine(topology, model.name))
            outcome = tuner.run()
    except KeyboardInterrupt:
        print("triptych: stopped; what was measured is kept, and the same command goes on from there", file=sys.stderr)
        raise
    profile = tuner.profile(outcome.conditions)
    text = report.text(outcome, profile)
    written = [_beside(out, ".report.txt"), _beside(out, ".profile.json")]
    output.write(written[0], text.encode(), "the report")
    output.write(written[1], profile.encode(), "the profile")
    if args.plot is not None:
        plot.draw_tuning(args.plot, outcome, profile)
        written.append(args.plot)
    if outcome.best is not None:
        remarks = report.remarks(outcome, model.name, profile.facts.openvino)
        own = folder if (Path(loaded.folder) / os.path.expanduser(loaded.model.path)).is_dir() else None
        output.write(out, config_file.render(loaded, outcome.best, own, remarks).encode(), "the configuration")
        written.insert(0, out)
    print(text, end="")
    print(f"\nwritten: {', '.join(map(str, written))}")
    return _status(outcome)


def _status(outcome: TuningOutcome) -> int:
    if outcome.best is None:
        print(
            f"triptych: error: {report.headline(outcome)}; no configuration was written (try a larger --latency-cap)",
            file=sys.stderr,
        )
        return 1
    return 0


def _machine(topology: Topology, model: str) -> str:
    nodes = " | ".join(cores.render(node) for node in topology.nodes)
    quota = topology.machine.quota
    granted = f", {quota:g} of them granted" if quota < len(topology.cores) else ""
    return f"tuning {model} on cores {nodes}{granted}"


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(out.stem + ending)


class TuningLines:
    """The tuner's progress as lines, for pipes and files."""

    def __enter__(self) -> Self:
        """Do nothing: no part of the terminal is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: nothing was drawn."""

    def say(self, line: str) -> None:
        """A line that stays."""
        print(line, file=sys.stderr, flush=True)

    def phase(self, title: str, total: int) -> None:
        """Print nothing: the parts of the phase will be told."""

    def doing(self, what: str) -> None:
        """Print nothing: the part will be told when it is done."""

    def done(self, line: str = "") -> None:
        """Print the line, if there is one."""
        if line:
            self.say(line)

    def tick(self) -> None:
        """Print nothing."""


class Bars:
    """A bar for each phase, with what is being done now; what was found stays above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:16}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
            console=Console(stderr=True, highlight=False),
            refresh_per_second=2,  # drawing takes time from what is being measured
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self._progress.console.print(line, markup=False)

    def phase(self, title: str, total: int) -> None:
        """Begin a new bar."""
        self._clear()
        self._task = self._progress.add_task(title, total=total, what="")

    def doing(self, what: str) -> None:
        """Write what is being done beside the bar."""
        if self._task is not None:
            self._progress.update(self._task, what=what)

    def done(self, line: str = "") -> None:
        """Advance the bar; the line stays above it."""
        if self._task is not None:
            self._progress.advance(self._task)
        if line:
            self.say(line)

    def tick(self) -> None:
        """Do nothing: the bars move by themselves."""

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, what="")


def _show() -> TuningLines | Bars:
    return Bars() if sys.stderr.isatty() else TuningLines()
