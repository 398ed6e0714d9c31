"""The tuner beside exhaustive search: which share of the best throughput does it find, in how many trials?

    python -m benchmarks.tuner --trials FILE.json --collect MINUTES [--steps N]     run configurations, as long as told
    python -m benchmarks.tuner --trials FILE.json --cap SECONDS [--steps N]         compare

Collecting runs every configuration that the tuner chooses from, for real, then round by round those that may be the
best, and keeps what came of each in the file: it may be called again and again, and goes on where it was. Stages alone
must have been measured before (`triptych tune` does; its figures are used). Comparing plays the tuner's search against
what was collected: every run it asks for is drawn from those of that configuration, many times over, with the seed of
its number. What it chooses counts by the median of all runs of that configuration, beside the best such median.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from orchestrator.models.locate import card
from orchestrator.tuning import profile, space, trial
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.load import jobs_for
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.predictor import Predictor
from orchestrator.tuning.score import Score, fill
from orchestrator.tuning.search import best_of, search, typical_rate
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.space import Candidate
from orchestrator.tuning.trial import Trial
from orchestrator.tuning.tuner import configured_candidate
from stages.core import config

_STEADY_S = 3.0

_HOPELESS = 0.8
"""Share of the best median below which a configuration is not run again: noise does not reach so far."""

_REPLAYS = 200


class Replay:
    """The embedded model on this machine, as it was measured, and the simulator calibrated by one configuration."""

    def __init__(self, steps: int, trials: list[Trial]) -> None:
        self.config = config.load(None)
        self.card = card(self.config)
        self.topology = Topology.here()
        self.steps = steps
        self.trials = trials
        points = profile.ProfileStore(profile.facts(self.config, self.card)).points()
        self.curves = Curves(points)
        self.usual = configured_candidate(self.config, self.card, self.topology)
        """Candidate that is served without a configuration: the only one that the simulator is calibrated by."""
        self.conditions = calibrate([ran for ran in trials if ran.candidate == self.usual], self.simulated, UNMEASURED)

    def predictor(self, conditions: Conditions) -> Predictor:
        """The simulator under these conditions."""
        return Predictor(self.config, self.card, self.topology, self.curves, conditions, self.steps)

    def simulated(self, ran: Trial, conditions: Conditions) -> Simulated:
        """Simulate a run under these conditions."""
        return self.predictor(conditions).play(ran.candidate, ran.jobs, ran.in_flight)


def read(path: Path) -> list[Trial]:
    """The runs that were collected."""
    return msgspec.json.decode(path.read_bytes(), type=list[Trial]) if path.exists() else []


def collect(path: Path, steps: int, minutes: float) -> None:
    """Run those that were run least, until the time is up."""
    end = time.monotonic() + minutes * 60
    trials = read(path)
    replay = Replay(steps, trials)
    every = list(dict.fromkeys([replay.usual, *space.candidates(replay.topology, replay.card)]))
    predictor = replay.predictor(replay.conditions)
    for candidate in _least_run(every, trials):
        out = fill(predictor.plan(candidate))
        jobs = jobs_for(out, predictor.bound(candidate), _STEADY_S)
        if time.monotonic() + 6 + 1.5 * (jobs + out) / predictor.bound(candidate) > end:
            break
        ran = trial.run(None, [], candidate, out, jobs, steps)
        trials.append(ran)
        path.write_bytes(msgspec.json.encode(trials))
        print(f"{candidate.name}: {ran.score.images_per_s:.2f} images/s, p95 {ran.score.p95_s:.2f} s", flush=True)
    print(f"{len(trials)} runs of {len({ran.candidate for ran in trials})} configurations; there are {len(every)}")


def _least_run(every: list[Candidate], trials: list[Trial]) -> Iterator[Candidate]:
    """The candidate with the fewest runs, again and again; each round in another order, so that no drift favours one.

    Once all were run, those far behind the best are left alone: which of the others is the best is what takes runs.
    """
    while True:
        rates = {each: [ran.score.images_per_s for ran in trials if ran.candidate == each] for each in every}
        if all(rates.values()):
            best = max(median(found) for found in rates.values())
            rates = {each: found for each, found in rates.items() if median(found) >= _HOPELESS * best}
        least = min(map(len, rates.values()))
        due = [each for each, found in rates.items() if len(found) == least]
        random.Random(f"{least} {len(due)}").shuffle(due)
        yield due[0]


def compare(replay: Replay, cap_s: float, trials: int) -> None:
    """Print the share of the best that the tuner finds, over many replays."""
    runs: dict[Candidate, list[Score]] = {}
    for ran in replay.trials:
        runs.setdefault(ran.candidate, []).append(ran.score)
    best = best_of(runs, cap_s)
    if best is None:
        raise SystemExit(f"no configuration keeps p99 within {cap_s:g} s")
    predictor = replay.predictor(replay.conditions)
    predicted = predictor.scores(runs)
    shares, counts, over = [], [], 0
    for number in range(_REPLAYS):
        rng = random.Random(number)
        first = {replay.usual: [rng.choice(runs[replay.usual])]}
        found = search(predicted, _replay(runs, rng), cap_s, trials, first)
        counts.append(sum(map(len, found.scores.values())))
        if found.best is None:
            shares.append(0.0)
            continue
        over += best_of({found.best: runs[found.best]}, cap_s) is None
        shares.append(typical_rate(runs[found.best]) / typical_rate(runs[best]))
    shares.sort()
    print(f"{len(runs)} configurations, {len(replay.trials)} runs, cap {cap_s:g} s, {replay.steps} steps")
    print(f"best of all: {best.name}, {typical_rate(runs[best]):.3g} images/s (median of {len(runs[best])})")
    print(f"as it comes: {replay.usual.name}, {typical_rate(runs[replay.usual]):.3g} images/s")
    print(
        f"tuner, {_REPLAYS} replays: {median(shares):.1%} of the best (mean {sum(shares) / len(shares):.1%}, "
        f"10th percentile {shares[_REPLAYS // 10]:.1%}, worst {shares[0]:.1%}) in {median(counts):g} trials; "
        f"{sum(share >= 0.98 for share in shares) / _REPLAYS:.0%} of the replays reach 98 %, {over} chose one over the "
        "cap"
    )


def _replay(runs: Mapping[Candidate, Sequence[Score]], rng: random.Random) -> Callable[[Candidate], Score]:
    """A trial that answers with one of the runs that were collected."""
    return lambda candidate: rng.choice(runs[candidate])


def main() -> None:
    """Collect, or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=Path, required=True, metavar="FILE")
    parser.add_argument("--collect", type=float, metavar="MINUTES")
    parser.add_argument("--cap", type=float, default=float("inf"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--most", type=int, default=12, help="trials of the tuner")
    args = parser.parse_args()
    if args.collect:
        collect(args.trials, args.steps, args.collect)
    else:
        compare(Replay(args.steps, read(args.trials)), args.cap, args.most)


if __name__ == "__main__":
    main()
