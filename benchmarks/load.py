"""Mixed load: what the order of jobs does to waiting, and what deadlines do under overload.

    python -m benchmarks.load [--only waiting|overload] [-c CONFIG] [--jobs N] [--rounds N] [--set KEY=VALUE]
                              [--json FILE]

Short jobs (4 steps, 80 %) and long ones (50 steps, 20 %) arrive as a Poisson process, whether or not the server keeps
up; all orders of jobs meet the same arrivals. Capacity is what is done of jobs that are there all at once.

- waiting, at 0.8 of capacity: first come, first served (A) against shortest remaining work first (B), in the order
  A B B A;
- overload, at 1.2 of capacity: every job has a deadline of three times what it takes alone. Goodput is the work that
  was done in time, as a share of capacity. As cores drift, each server's capacity is measured before and after it, and
  the mean of the two counts.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np

from orchestrator.bench import drive
from orchestrator.bench.measure import EXPECTED
from orchestrator.bench.workload import Arrival
from orchestrator.client import Client, own_pipeline
from stages.core import wire

PROMPT = "a photo of an astronaut riding a horse on mars"
NEGATIVE = "low resolution, blurry"
STEPS = {"short": 4, "long": 50}
LONG_SHARE = 0.2
DECODING = 3
"""Forwards of the U-Net that take as long as a decoding, about."""
WORK = LONG_SHARE * STEPS["long"] + (1 - LONG_SHARE) * STEPS["short"] + DECODING
"""Work of a job, in steps, on average."""
RHO = 0.8
OVERLOAD = 1.2
PATIENCE = 3.0
"""Deadline of a job, as a multiple of the time it takes alone."""


@dataclass
class Job:
    """One prompt of the load and what became of it."""

    kind: str
    at: float
    """Seconds after the start of the load when it is sent."""
    deadline_s: float | None = None
    sent: float = 0.0
    latency: float | None = None
    """Seconds from when it was due to the picture; None if there was none."""


def mix(count: int, rate: float, seed: int) -> list[Job]:
    """`count` jobs, arriving at `rate` a second (all at once if infinite).

    Exactly as many are long as the share says, and exactly so many come within their time: a Poisson process of which
    the number of arrivals is given, so that the load of a short run, too, is what it is meant to be.
    """
    rng = random.Random(seed)
    kinds = ["long"] * round(LONG_SHARE * count)
    kinds += ["short"] * (count - len(kinds))
    rng.shuffle(kinds)
    return [Job(kind, at) for kind, at in zip(kinds, sorted(rng.uniform(0, count / rate) for _ in kinds), strict=True)]


def play(client: Client, jobs: list[Job]) -> float:
    """Send every job at its time, whatever has become of the others; returns the seconds until the last answer."""
    load = [Arrival(job.kind, request(number, job), job.at) for number, job in enumerate(jobs)]
    played = drive.play(client, load)
    for job, record in zip(jobs, played.records, strict=True):
        if record.code not in (None, *EXPECTED):
            raise SystemExit(f"failed: {record.message}")
        job.sent, job.latency = record.sent_s, record.latency_s
    return played.span_s


def request(number: int, job: Job) -> wire.Submit:
    """The prompt of a job."""
    steps = STEPS[job.kind]
    return wire.Submit(
        id=str(number), prompt=PROMPT, negative_prompt=NEGATIVE, seed=number, steps=steps, deadline_s=job.deadline_s
    )


def warm_up(client: Client) -> None:
    """Let the server learn its costs."""
    play(client, mix(8, float("inf"), 0))


def alone(client: Client) -> dict[str, float]:
    """Seconds that a job of each kind takes with nothing beside it: the median of five."""
    found = {}
    for kind in STEPS:
        times = []
        for _ in range(5):
            job = Job(kind, 0.0)
            play(client, [job])
            times.append(job.latency or 0.0)
        found[kind] = float(np.median(times))
    return found


def work(jobs: list[Job]) -> float:
    """Work of all these jobs, in steps."""
    return sum(STEPS[job.kind] + DECODING for job in jobs)


def waiting(args: argparse.Namespace, rate: float) -> Iterator[tuple[str, list[Job]]]:
    """The load at 0.8 of capacity under both orders, round by round."""
    for number in range(args.rounds):
        for order in ("arrival", "shortest", "shortest", "arrival"):
            with server(args, order) as client:
                jobs = mix(args.jobs, rate, seed=number)
                play(client, jobs)
                yield order, jobs


class server:
    """A private pipeline with an order, warmed up."""

    def __init__(self, args: argparse.Namespace, order: str) -> None:
        overrides = [*args.set, f"pipeline.order={order}", "pipeline.queue_limit=100000"]
        self._pipeline = own_pipeline(args.config, overrides)

    def __enter__(self) -> Client:
        client = self._pipeline.__enter__()
        warm_up(client)
        return client

    def __exit__(self, *error: object) -> None:
        self._pipeline.__exit__(None, None, None)


def latencies(jobs: list[Job], kind: str | None = None) -> list[float]:
    """Latencies of the jobs that were done."""
    return [job.latency for job in jobs if job.latency is not None and kind in (None, job.kind)]


def capacity(client: Client, count: int) -> tuple[float, float]:
    """Steps and jobs a second where there is always one more to do."""
    jobs = mix(count, float("inf"), seed=99)
    seconds = play(client, jobs)
    return work(jobs) / seconds, len(jobs) / seconds


def compare_waiting(args: argparse.Namespace) -> dict[str, list[float]]:
    """Print and return the ratios of both orders' latencies, one a pair of runs."""
    with server(args, "arrival") as client:
        rate = capacity(client, args.jobs)[0] / WORK
    print(f"capacity {rate:.2f} jobs/s", flush=True)
    figures: dict[str, dict[str, list[float]]] = {}
    for order, jobs in waiting(args, RHO * rate):
        short, long = latencies(jobs, "short"), latencies(jobs, "long")
        row = {
            "mean": mean(latencies(jobs)),
            "short mean": mean(short),
            "short p99": float(np.percentile(short, 99)),
            "long mean": mean(long),
            "long p99": float(np.percentile(long, 99)),
        }
        print(f"{order:9s}" + "".join(f"  {name} {value:.3f} s" for name, value in row.items()), flush=True)
        for name, value in row.items():
            figures.setdefault(name, {}).setdefault(order, []).append(value)
    ratios = {}
    for name, by_order in figures.items():
        pairs = [b / a for a, b in zip(by_order["arrival"], by_order["shortest"], strict=True)]
        ratios[name] = pairs
        print(f"shortest / arrival, {name}: {mean(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
    return ratios


def overload(client: Client, count: int, seed: int) -> tuple[float, float]:
    """Goodput as a share of capacity, by work and by jobs."""
    isolated = alone(client)
    before = capacity(client, count // 2)
    rate = OVERLOAD * before[0] / WORK
    jobs = mix(count, rate, seed)
    for job in jobs:
        job.deadline_s = PATIENCE * isolated[job.kind]
    play(client, jobs)
    after = capacity(client, count // 2)
    done = [job for job in jobs if job.latency is not None and job.latency <= (job.deadline_s or 0)]
    span_s = max([count / rate, *(job.at + (job.latency or 0.0) for job in done)])
    print(f"    capacity {before[1]:.2f}, then {after[1]:.2f} jobs/s", flush=True)
    return work(done) / span_s / mean((before[0], after[0])), len(done) / span_s / mean((before[1], after[1]))


def compare_goodput(args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Print and return the goodput of every order, one a round."""
    goodput: dict[str, list[tuple[float, float]]] = {}
    orders = ("deadline", "shortest", "arrival")
    for number in range(args.rounds):
        for order in orders if number % 2 == 0 else reversed(orders):
            with server(args, order) as client:
                found = overload(client, args.jobs, seed=5 + number)
            goodput.setdefault(order, []).append(found)
            print(f"overload {OVERLOAD}, {order}: goodput {found[0]:.2f} by work, {found[1]:.2f} by jobs", flush=True)
    for order, all_rounds in goodput.items():
        by_work, by_jobs = zip(*all_rounds, strict=True)
        print(
            f"overload {OVERLOAD}, {order}: goodput by work {median(by_work):.2f} ({min(by_work):.2f} to "
            f"{max(by_work):.2f}), by jobs {median(by_jobs):.2f} ({min(by_jobs):.2f} to {max(by_jobs):.2f})"
        )
    return goodput


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("waiting", "overload"))
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ratios = compare_waiting(args) if args.only != "overload" else {}
    goodput = compare_goodput(args) if args.only != "waiting" else {}
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios, "goodput": goodput}))


if __name__ == "__main__":
    main()
