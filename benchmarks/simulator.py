"""The simulator beside real runs: throughput and 95th percentile of latency, configuration by configuration.

    python -m benchmarks.simulator --trials FILE.json [--steps N]

The runs are those that `python -m benchmarks.tuner --collect` made. The simulator knows what stages take alone, and was
calibrated (the hub's time for a message, interference) by the runs of one configuration, which is not compared.
"""

import argparse
from pathlib import Path
from statistics import median

from benchmarks.tuner import Ground, read
from orchestrator.tuning.trial import Trial

THROUGHPUT, TAIL = 0.05, 0.10
"""How near it is wanted to come."""


def main() -> None:
    """Print one line a configuration, and how many are near enough."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    ground = Ground(args.steps, read(args.trials))
    by_candidate: dict[object, list[Trial]] = {}
    for ran in ground.trials:
        by_candidate.setdefault(ran.candidate, []).append(ran)
    print(f"{'':58s} {'images/s':>8s} {'runs':>15s} {'error':>6s}   {'p95, s':>6s} {'runs':>11s} {'error':>6s}")
    errors = []
    for candidate, runs in by_candidate.items():
        paper = ground.simulated(runs[0], ground.conditions)
        rates = [ran.score.images_per_s for ran in runs]
        tails = [ran.score.p95_s for ran in runs]
        rate, tail = paper.images_per_s / median(rates) - 1, paper.p95_s / median(tails) - 1
        fitted = candidate == ground.usual
        print(
            f"{runs[0].candidate.name:58s} {paper.images_per_s:8.2f} {min(rates):7.2f}-{max(rates):<7.2f} {rate:+6.1%} "
            f"{paper.p95_s:8.2f} {min(tails):5.2f}-{max(tails):<5.2f} {tail:+6.1%}{'  (fitted to)' if fitted else ''}"
        )
        if not fitted:
            errors.append((abs(rate), abs(tail)))
    rates, tails = zip(*errors, strict=True)
    print(f"calibrated: {ground.conditions}")
    print(
        f"throughput: median error {median(rates):.1%}, {sum(e <= THROUGHPUT for e in rates)} of {len(rates)} within "
        f"{THROUGHPUT:.0%}; p95: median error {median(tails):.1%}, {sum(e <= TAIL for e in tails)} of {len(tails)} "
        f"within {TAIL:.0%}"
    )


if __name__ == "__main__":
    main()
