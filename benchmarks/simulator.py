"""The simulator beside real runs: throughput and 95th percentile of latency, configuration by configuration.

    python -m benchmarks.simulator --json FILE.json [--minutes M] [--steps N]

All pipelines and all stages alone are loaded side by side, and idle while one of them works. A round, of about a
minute, measures the stages, plays a load on every pipeline, plays it again in the opposite order, and measures the
stages again, backwards: however the machine drifts, all of them meet the same of it. Rounds are kept in the file:
called again, it adds more.

The simulator is told what the stages take alone, and what came of the two configurations that it is calibrated by;
neither is among those compared. All rounds count as one measurement: as every sample lasted as long, rates are
averaged, and seconds by their rates. How far that can be trusted is shown by quarters of the rounds, each by itself.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from statistics import fmean, harmonic_mean

import msgspec

from orchestrator.models.locate import card
from orchestrator.tuning import profile, trial
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.load import jobs_for
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.predictor import Predictor
from orchestrator.tuning.profile import StageProfiler, StageSetting
from orchestrator.tuning.score import fill, steady
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.space import Candidate, candidates
from orchestrator.tuning.trial import Trial, TrialPipeline
from stages.core import config
from stages.core.point import Point

THROUGHPUT, TAIL = 0.05, 0.10
"""Relative errors of throughput and of tail latency that are aimed at."""

_STEADY_S = 2.5
_ROWS = (2, 4, 8)
_PARTS = 4

CONFIG = config.load(None)
CARD = card(CONFIG)
HERE = Topology.here()


class Round(msgspec.Struct, frozen=True):
    """The measurements of a minute or two: stages before and after, and every configuration twice between."""

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


def stage_settings() -> list[StageSetting]:
    """The settings in which the stages are measured alone."""
    granted = HERE.granted
    unets = [StageSetting("unet", granted, streams, _ROWS) for streams in (1, granted)]
    others = [StageSetting(kind, threads, 1, (1,)) for kind in ("vae", "text") for threads in (1, granted)]
    return [*unets, StageSetting("unet", 1, 1, _ROWS), *others]


def predictor(points: Sequence[Point], steps: int, conditions: Conditions = UNMEASURED) -> Predictor:
    """The simulator, from the measurements of stages alone."""
    return Predictor(CONFIG, CARD, HERE, Curves(points), conditions, steps)


def measure(
    stages: Sequence[tuple[StageSetting, StageProfiler]],
    pipelines: dict[Candidate, TrialPipeline],
    jobs: dict[Candidate, int],
    steps: int,
) -> Round:
    """Play one round."""
    works = [(profiler, rows) for setting, profiler in stages for rows in setting.rows]
    before = [profiler.measure(rows) for profiler, rows in works]
    trials = [pipelines[each].play(jobs[each], steps) for each in (*pipelines, *reversed(pipelines))]
    after = [profiler.measure(rows) for profiler, rows in reversed(works)]
    fitted, compared = chosen()
    return Round(
        tuple(point for point in (*before, *after) if point),
        tuple(ran for ran in trials if ran.candidate in fitted),
        tuple(ran for ran in trials if ran.candidate in compared),
    )


def rounds(minutes: float, steps: int) -> Iterable[Round]:
    """Load everything, then play as many rounds as there is time for, one at least."""
    with ExitStack() as stack:
        stages = [
            (setting, stack.enter_context(profile.stage_profiler(setting, CONFIG, CARD, HERE)))
            for setting in stage_settings()
        ]
        points = [point for setting, profiler in stages for rows in setting.rows if (point := profiler.measure(rows))]
        predicted = predictor(points, steps)
        pipelines: dict[Candidate, TrialPipeline] = {}
        jobs: dict[Candidate, int] = {}
        for candidate in (each for some in chosen() for each in some):
            out = fill(predicted.plan(candidate))
            jobs[candidate] = jobs_for(out, predicted.bound(candidate), _STEADY_S)
            pipelines[candidate] = stack.enter_context(trial.trial_pipeline(None, [], candidate, out))
            pipelines[candidate].warm_up(steps)
            print(f"{candidate.name}: loaded", flush=True)
        began, took, number = time.monotonic(), 0.0, 0
        while time.monotonic() - began + took < minutes * 60:
            started, number = time.monotonic(), number + 1
            yield measure(stages, pipelines, jobs, steps)
            took = time.monotonic() - started
            print(f"round {number}: {took:.0f} s", flush=True)


def averaged(points: Iterable[Point]) -> list[Point]:
    """The points with those of the same kind of work averaged into one."""
    found: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        found.setdefault((point.kind, point.threads, point.streams, point.rows), []).append(point)
    return [
        msgspec.structs.replace(
            those[0],
            seconds=harmonic_mean(point.seconds for point in those),
            spread_s=fmean(point.spread_s for point in those),
        )
        for those in found.values()
    ]


def compare(found: Sequence[Round]) -> dict[Candidate, tuple[float, float]]:
    """Simulated over real, images a second and 95th percentile, of all these rounds as one measurement."""
    points = averaged(point for one in found for point in one.points)

    @cache
    def simulated(candidate: Candidate, jobs: int, in_flight: int, steps: int, at: Conditions) -> Simulated:
        return predictor(points, steps, at).play(candidate, jobs, in_flight)

    def again(ran: Trial, at: Conditions) -> Simulated:
        return simulated(ran.candidate, ran.jobs, ran.in_flight, ran.steps, at)

    conditions = calibrate([ran for one in found for ran in one.fitted], again, UNMEASURED)
    print(f"{len(found)} rounds, calibrated: {conditions}")
    runs: dict[Candidate, list[Trial]] = {}
    for ran in (ran for one in found for ran in (*one.fitted, *one.compared)):
        runs.setdefault(ran.candidate, []).append(ran)
    ratios = {}
    for candidate, same in runs.items():
        scores = [steady(again(ran, conditions).played.records, ran.in_flight) for ran in same]
        rate = fmean(score.images_per_s for score in scores) / fmean(ran.score.images_per_s for ran in same)
        tail = fmean(score.p95_s for score in scores) / fmean(ran.score.p95_s for ran in same)
        ratios[candidate] = (rate, tail)
    return ratios


def report(found: Sequence[Round]) -> None:
    """Print the ratios of all rounds, and the extremes of their quarters."""
    whole = compare(found)
    parts = [compare(found[part::_PARTS]) for part in range(_PARTS) if found[part::_PARTS]]
    print(f"simulated / real{'':43s} images/s{'':18s} p95")
    fitted, _ = chosen()
    for candidate, (rate, tail) in whole.items():
        rates, tails = zip(*(part[candidate] for part in parts), strict=True)
        near = abs(rate - 1) <= THROUGHPUT and abs(tail - 1) <= TAIL
        verdict = "fitted to" if candidate in fitted else "ok" if near else "MISSED"
        print(
            f"{candidate.name:58s} {rate:5.3f} ({min(rates):.3f} to {max(rates):.3f})   "
            f"{tail:5.3f} ({min(tails):.3f} to {max(tails):.3f}) {verdict}"
        )


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
