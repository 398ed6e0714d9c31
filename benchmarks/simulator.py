"""The simulator beside real runs: throughput and 95th percentile of latency, configuration by configuration.

    python -m benchmarks.simulator --json FILE.json [--minutes M] [--steps N]

Each round measures the stages alone, runs the configuration that the simulator is calibrated by, and runs those it is
compared on, one after the other, so that a drift of the machine hits all alike; then the next round, while there is
time. Rounds are kept in the file: called again, it adds more. The simulator is told what stages take alone, and in
every round what came of the one configuration that is not compared.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from orchestrator.tuning import profile, trial
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.foretell import Foretelling
from orchestrator.tuning.load import jobs_for
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.profile import Ask
from orchestrator.tuning.score import fill, steady
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.space import Candidate, candidates
from orchestrator.tuning.trial import Trial
from orchestrator.weights import card
from stages.core import config
from stages.core.point import Point

THROUGHPUT, TAIL = 0.05, 0.10
"""How near it is wanted to come."""

_STEADY_S = 5.0
_ROWS = (2, 4, 6, 8)

CONFIG = config.load(None)
CARD = card(CONFIG)
HERE = Topology.here()


class Round(msgspec.Struct, frozen=True):
    """What was measured within a minute or so."""

    points: tuple[Point, ...]
    fitted: Trial
    compared: tuple[Trial, ...]


def chosen() -> tuple[Candidate, list[Candidate]]:
    """The configuration to calibrate by, and those to compare on."""
    every = candidates(HERE, CARD)
    granted = HERE.granted

    def find(share: str, streams: int, rows: int) -> Candidate:
        return next(
            each
            for each in every
            if (each.share, each.unet.streams, each.unet.max_rows) == (share, streams, rows)
            and each.vae.threads == each.unet.threads == granted
        )

    return find("timeslice", 1, 2), [find("turns", 1, 8), find("timeslice", granted, 4), find("timeslice", 1, 8)]


def measure(steps: int) -> Round:
    """One round."""
    granted = HERE.granted
    asks = [Ask("unet", granted, streams, _ROWS) for streams in (1, granted)]
    asks.append(Ask("unet", 1, 1, _ROWS))
    asks += [Ask(kind, threads, 1, (1,)) for kind in ("vae", "text") for threads in (1, granted)]
    points: list[Point] = []
    for ask in asks:
        points += profile.measure(ask, CONFIG, CARD, HERE, float("inf"), lambda: None)
    paper = Foretelling(CONFIG, CARD, HERE, Curves(points), steps=steps)

    def run(candidate: Candidate) -> Trial:
        out = fill(paper.plan(candidate))
        jobs = jobs_for(out, paper.bound(candidate), _STEADY_S)
        ran = trial.run(None, [], candidate, out, jobs, steps)
        print(f"{candidate.name}: {ran.score.images_per_s:.2f} images/s, p95 {ran.score.p95_s:.2f} s", flush=True)
        return ran

    fitted, compared = chosen()
    return Round(tuple(points), run(fitted), tuple(run(candidate) for candidate in compared))


def simulated(points: Sequence[Point], conditions: Conditions, ran: Trial) -> Simulated:
    """What the simulator makes of a run."""
    paper = Foretelling(CONFIG, CARD, HERE, Curves(points), conditions, ran.steps)
    return paper.play(ran.candidate, ran.jobs, ran.in_flight)


def report(rounds: list[Round]) -> None:
    """Print the ratios, simulated over real: the median of all rounds, and the extremes."""
    # What stages take alone is the quickest of all rounds, as the tuner keeps it; the calibration is each round's own.
    points = profile.quickest(point for found in rounds for point in found.points)
    rates: dict[str, list[float]] = {}
    tails: dict[str, list[float]] = {}
    for found in rounds:
        conditions = calibrate([found.fitted], lambda ran, at: simulated(points, at, ran), UNMEASURED)
        print(f"calibrated: {conditions}")
        for ran in (found.fitted, *found.compared):
            paper = steady(simulated(points, conditions, ran).played.records, ran.in_flight)
            name = ran.candidate.name + (" (fitted to)" if ran is found.fitted else "")
            rates.setdefault(name, []).append(paper.images_per_s / ran.score.images_per_s)
            tails.setdefault(name, []).append(paper.p95_s / ran.score.p95_s)
    print(f"{len(rounds)} rounds; simulated / real{'':33s} images/s{'':18s} p95")
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
    rounds = msgspec.json.decode(args.json.read_bytes(), type=list[Round]) if args.json.exists() else []
    began = time.monotonic()
    took = 0.0
    while time.monotonic() - began + took < args.minutes * 60:
        started = time.monotonic()
        rounds.append(measure(args.steps))
        args.json.write_bytes(msgspec.json.encode(rounds))
        took = time.monotonic() - started
    report(rounds)


if __name__ == "__main__":
    main()
