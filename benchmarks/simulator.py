"""The simulator beside real runs: throughput and 95th percentile of latency, configuration by configuration.

    python -m benchmarks.simulator --json FILE.json [--minutes M] [--steps N]

All pipelines and all stages alone are loaded side by side, and idle while one of them works. A round measures the
stages, plays a load on every pipeline, plays it on them again in the opposite order, and measures the stages again,
backwards: however the machine drifts, it does so around the middle of the round for all of them. The simulator is told
what the stages take alone in that round, and what came of the two configurations that it is calibrated by; neither is
among those compared. Rounds are kept in the file: called again, it adds more.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median

import msgspec

from orchestrator.tuning import profile, trial
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.curves import Curves, typical
from orchestrator.tuning.foretell import Foretelling
from orchestrator.tuning.load import jobs_for
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import Alone, Ask
from orchestrator.tuning.score import fill, steady
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.space import Candidate, candidates
from orchestrator.tuning.trial import Running, Trial
from orchestrator.weights import card
from stages.core import config
from stages.core.point import Point

THROUGHPUT, TAIL = 0.05, 0.10
"""How near it is wanted to come."""

_STEADY_S = 4.0
_ROWS = (2, 4, 6, 8)

CONFIG = config.load(None)
CARD = card(CONFIG)
HERE = Topology.here()


class Round(msgspec.Struct, frozen=True):
    """What was measured within a minute or two: stages before and after, and every configuration twice between."""

    points: tuple[Point, ...]
    fitted: tuple[Trial, ...]
    compared: tuple[Trial, ...]


def chosen() -> tuple[list[Candidate], list[Candidate]]:
    """The configurations to calibrate by, and those to compare on."""
    every = candidates(HERE, CARD)
    granted = HERE.granted

    def find(share: str, streams: int, rows: int) -> Candidate:
        return next(
            each
            for each in every
            if (each.share, each.unet.streams, each.unet.max_rows) == (share, streams, rows)
            and each.vae.threads == each.unet.threads == granted
        )

    fitted = [find("timeslice", 1, 2), find("turns", 1, 2)]
    return fitted, [find("timeslice", granted, 4), find("timeslice", 1, 8), find("turns", 1, 8)]


def asks() -> list[Ask]:
    """The stages alone."""
    granted = HERE.granted
    unets = [Ask("unet", granted, streams, _ROWS) for streams in (1, granted)]
    others = [Ask(kind, threads, 1, (1,)) for kind in ("vae", "text") for threads in (1, granted)]
    return [*unets, Ask("unet", 1, 1, _ROWS), *others]


def paper(points: Sequence[Point], steps: int, conditions: Conditions = UNMEASURED) -> Foretelling:
    """The simulator, told what stages take alone."""
    return Foretelling(CONFIG, CARD, HERE, Curves(points), conditions, steps)


def measure(stages: Sequence[tuple[Ask, Alone]], pipelines: dict[Candidate, Running], steps: int) -> Round:
    """One round."""
    works = [(alone, rows) for ask, alone in stages for rows in ask.rows]
    before = [point for alone, rows in works if (point := alone.measure(rows))]
    foretold = paper(before, steps)
    fitted, compared = chosen()
    there = [*fitted, *compared]
    trials: list[Trial] = []
    for candidate in (*there, *reversed(there)):
        jobs = jobs_for(fill(foretold.plan(candidate)), foretold.bound(candidate), _STEADY_S)
        trials.append(pipelines[candidate].play(jobs, steps))
        score = trials[-1].score
        print(f"{candidate.name}: {score.images_per_s:.2f} images/s, p95 {score.p95_s:.2f} s", flush=True)
    after = [point for alone, rows in reversed(works) if (point := alone.measure(rows))]
    return Round(
        (*before, *after),
        tuple(ran for ran in trials if ran.candidate in fitted),
        tuple(ran for ran in trials if ran.candidate in compared),
    )


def rounds(minutes: float, steps: int) -> Iterable[Round]:
    """Load everything, then as many rounds as there is time for, one at least."""
    with ExitStack() as stack:
        stages = [(ask, stack.enter_context(profile.alone(ask, CONFIG, CARD, HERE))) for ask in asks()]
        points = [point for ask, alone in stages for rows in ask.rows if (point := alone.measure(rows))]
        pipelines: dict[Candidate, Running] = {}
        for candidate in (each for some in chosen() for each in some):
            out = fill(paper(points, steps).plan(candidate))
            pipelines[candidate] = stack.enter_context(trial.running(None, [], candidate, out))
            pipelines[candidate].warm_up(steps)
            print(f"{candidate.name}: loaded", flush=True)
        began, took = time.monotonic(), 0.0
        while time.monotonic() - began + took < minutes * 60:
            started = time.monotonic()
            yield measure(stages, pipelines, steps)
            took = time.monotonic() - started


def averaged(points: Iterable[Point]) -> list[Point]:
    """Of each kind of work one point: in the middle of its measurements."""
    found: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        found.setdefault((point.kind, point.threads, point.streams, point.rows), []).append(point)
    return [
        msgspec.structs.replace(
            those[0],
            seconds=typical(point.seconds for point in those),
            spread_s=fmean(point.spread_s for point in those),
        )
        for those in found.values()
    ]


def report(found: Sequence[Round]) -> None:
    """Print the ratios, simulated over real: the median of all rounds, and the extremes."""
    rates: dict[str, list[float]] = {}
    tails: dict[str, list[float]] = {}
    for one in found:
        points = averaged(one.points)

        def simulated(ran: Trial, at: Conditions, points: Sequence[Point] = points) -> Simulated:
            return paper(points, ran.steps, at).play(ran.candidate, ran.jobs, ran.in_flight)

        conditions = calibrate(one.fitted, simulated, UNMEASURED)
        print(f"calibrated: {conditions}")
        runs: dict[Candidate, list[Trial]] = {}
        for ran in (*one.fitted, *one.compared):
            runs.setdefault(ran.candidate, []).append(ran)
        for candidate, twice in runs.items():
            score = steady(simulated(twice[0], conditions).played.records, twice[0].in_flight)
            name = candidate.name + (" (fitted to)" if twice[0] in one.fitted else "")
            rates.setdefault(name, []).append(score.images_per_s / typical(ran.score.images_per_s for ran in twice))
            tails.setdefault(name, []).append(score.p95_s / typical(ran.score.p95_s for ran in twice))
    print(f"{len(found)} rounds; simulated / real{'':33s} images/s{'':18s} p95")
    for name, ratios in rates.items():
        rate, tail = median(ratios), median(tails[name])
        near = "" if "fitted" in name else " ok" if _near(rate, THROUGHPUT) and _near(tail, TAIL) else " MISSED"
        print(
            f"{name:58s} {rate:5.3f} ({min(ratios):.3f} to {max(ratios):.3f})   "
            f"{tail:5.3f} ({min(tails[name]):.3f} to {max(tails[name]):.3f}){near}"
        )


def _near(ratio: float, tolerance: float) -> bool:
    return abs(ratio - 1) <= tolerance


def main() -> None:
    """Add rounds while there is time, then tell what all of them come to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    found = msgspec.json.decode(args.json.read_bytes(), type=list[Round]) if args.json.exists() else []
    if args.minutes:
        for one in rounds(args.minutes, args.steps):
            found.append(one)
            args.json.write_bytes(msgspec.json.encode(found))
    report(found)


if __name__ == "__main__":
    main()
