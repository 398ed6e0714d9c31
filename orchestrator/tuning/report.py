"""The tuner's outcome as text for people. Pure."""

from collections.abc import Sequence
from io import StringIO
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.tuning.profile import Profile
from orchestrator.tuning.score import Score
from orchestrator.tuning.search import typical_p99, typical_rate
from orchestrator.tuning.space import Candidate
from orchestrator.tuning.trial import Trial
from orchestrator.tuning.tuner import TuningOutcome
from stages.core import cores
from stages.core.route import STEPWISE

_WIDTH = 118


def scores_of(trials: Sequence[Trial], candidate: Candidate) -> list[Score]:
    """Scores of all runs of a candidate, in order."""
    return [trial.score for trial in trials if trial.candidate == candidate]


def headline(outcome: TuningOutcome) -> str:
    """The outcome in one line."""
    before = scores_of(outcome.trials, outcome.before)
    if outcome.best is None:
        fastest = min((trial.score.p99_s for trial in outcome.trials), default=float("inf"))
        return f"nothing that was run keeps p99 within {outcome.cap_s:g} s; the lowest p99 was {fastest:.3g} s"
    best = scores_of(outcome.trials, outcome.best)
    rate = typical_rate(best)
    line = f"{rate:.3g} images/s with p99 {typical_p99(best):.3g} s (cap {outcome.cap_s:g} s): {outcome.best.name}"
    if before and outcome.best != outcome.before:
        line += f"; as it was: {typical_rate(before):.3g} images/s, p99 {typical_p99(before):.3g} s"
    return line


def remarks(outcome: TuningOutcome, model: str, openvino: str) -> list[str]:
    """The comment lines at the top of the configuration file: how it was found."""
    assert outcome.best is not None
    best = [trial for trial in outcome.trials if trial.candidate == outcome.best]
    runs = "1 run" if len(best) == 1 else f"the median of {len(best)} runs"
    return [
        "Written by `triptych tune`.",
        f"Measured here: {typical_rate([b.score for b in best]):.3g} images/s, p50 "
        f"{median(b.score.p50_s for b in best):.3g} s, p99 {typical_p99([b.score for b in best]):.3g} s "
        f"({runs}, {best[0].in_flight} prompts in flight, cap {outcome.cap_s:g} s),",
        f"{model}, OpenVINO {openvino}. Other loads, cores or models want another measurement.",
    ]


def text(outcome: TuningOutcome, profile: Profile) -> str:
    """The report, as lines of at most 118 characters."""
    out = StringIO()
    console = Console(file=out, width=_WIDTH, highlight=False, no_color=True)

    def say(line: str = "") -> None:
        console.print(line, markup=False, soft_wrap=False)

    say(headline(outcome))
    say()
    if outcome.best is not None:
        best = [trial for trial in outcome.trials if trial.candidate == outcome.best]
        say(f"What limits it: {best[-1].bottleneck.limits}; {best[-1].bottleneck.why}.")
        for line in next_core(outcome, len(cores.parse(profile.cores))):
            say(line)
        say()
    say("What was run, best first; several runs of one configuration are told by their median:")
    console.print(_runs(outcome))
    say("What stages take alone, in milliseconds for a row (U-Net, all streams together), or for a unit of work:")
    console.print(_alone(profile))
    conditions = outcome.conditions
    say(
        f"The simulator learned from the first run: {conditions.message_s * 1e6:.0f} us of CPU for each message at the "
        f"hub and the client, and {conditions.interference:.0%} lost where processes compete for cores. It put "
        f"{outcome.simulated} configurations simulated"
        + (f"; {outcome.left_out} do not fit into memory." if outcome.left_out else ".")
    )
    if not outcome.complete:
        say("The search was ended by its budget; run it again with more, and it goes on from here.")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def next_core(outcome: TuningOutcome, here: int) -> list[str]:
    """Lines on the throughput with other numbers of cores, beside that with these; simulated by the fitted law."""
    found = dict(outcome.more_cores)
    if here not in found:
        return []
    parts = [
        f"{number} core{'' if number == 1 else 's'} {found[number] / found[here] - 1:+.0%}"
        for number in sorted(found)
        if number != here
    ]
    return [f"What other cores would buy, simulated, beside these {here}: {', '.join(parts)}."] if parts else []


def _runs(outcome: TuningOutcome) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("", "streams x rows", "images/s", "", "simulated", "p99", "simulated", "memory", "runs"):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    predicted = dict(outcome.predicted)
    ran = list(dict.fromkeys(trial.candidate for trial in outcome.trials))
    ran.sort(key=lambda candidate: -typical_rate(scores_of(outcome.trials, candidate)))
    for candidate in ran:
        scores = scores_of(outcome.trials, candidate)
        trials = [trial for trial in outcome.trials if trial.candidate == candidate]
        rates = [score.images_per_s for score in scores]
        predictor = predicted.get(candidate)
        mark = "* " if candidate == outcome.best else "! " if typical_p99(scores) > outcome.cap_s else "  "
        as_it_was = ", as it was" if candidate == outcome.before else ""
        table.add_row(
            mark + candidate.layout + as_it_was,
            f"{candidate.unet.streams} x {candidate.unet.max_rows}",
            f"{typical_rate(scores):.3g}",
            f"± {(max(rates) - min(rates)) / 2 / typical_rate(scores):.0%}" if len(rates) > 1 else "",
            f"{predictor.images_per_s:.3g}" if predictor else "",
            f"{typical_p99(scores):.3g} s",
            f"{predictor.p99_s:.3g} s" if predictor else "",
            f"{median(trial.pss_bytes for trial in trials) / 2**30:.2f} GiB",
            f"{len(scores)}",
        )
    table.caption = "* chosen, ! over the cap"
    table.caption_justify = "left"
    return table


def _alone(profile: Profile) -> Table:
    """One line for each number of threads and streams, one column for each number of rows."""
    rows = sorted({point.rows for point in profile.points if point.kind == STEPWISE})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for number in rows:
        table.add_column(f"{number} rows", justify="right")
    table.add_column("a unit", justify="right")
    which = dict.fromkeys(
        (p.kind, p.threads, p.streams) for p in sorted(profile.points, key=lambda p: (p.kind, p.threads, p.streams))
    )
    for kind, threads, streams in which:
        mine = {p.rows: p for p in profile.points if (p.kind, p.threads, p.streams) == (kind, threads, streams)}
        name = f"{kind}, {threads} thread{'' if threads == 1 else 's'}" + (
            f" in {streams} streams" if streams > 1 else ""
        )
        if kind == STEPWISE:
            cells = [f"{1000 * mine[r].seconds / r / streams:.3g}" if r in mine else "" for r in rows]
            table.add_row(name, *cells, "")
        else:
            table.add_row(name, *("" for _ in rows), f"{1000 * mine[1].seconds:.3g}")
    return table
