"""Images per second of equal prompts, beside OpenVINO GenAI, in one interleaved run.

    python -m benchmarks.throughput [--model FOLDER] [--images N] [--rounds N] [--steps N] [--guidance G]
                                    [--set KEY=VALUE ...] [--json FILE]

Contenders: GenAI in one process (static shapes), GenAI in two processes pinned to half of the cores each, and Triptych,
once as it comes and once with the `--set` keys. All of them are loaded first and idle while another one works; each
round goes through them forwards and backwards (A B C D D C B A), so that a drift of the machine hits all alike. Same
IR, precision, steps, guidance and prompt; Triptych also writes PNGs and GenAI does not.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.genai_worker import NEGATIVE, PROMPT
from orchestrator.client import Client
from orchestrator.launch import private_pipeline
from stages.core import cores, wire
from stages.core.model import demo_folder, read_card

Run = Callable[[int], float]
"""Make so many images; seconds."""


def genai(stack: ExitStack, args: argparse.Namespace, processes: int) -> Run:
    """GenAI in so many processes, each with its part of the cores."""
    card = read_card(args.model)
    available = sorted(cores.allowed())
    part = len(available) // processes
    workers = []
    for number in range(processes):
        mask = [cores.render(available[number * part : (number + 1) * part])] if processes > 1 else []
        command = [sys.executable, "-m", "benchmarks.genai_worker", str(args.model), str(args.steps)]
        command += [str(args.guidance), str(card.native[0]), str(card.native[1]), *mask]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(worker.communicate)
        workers.append(worker)
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", "GenAI did not load"

    def run(images: int) -> float:
        began = time.monotonic()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{images // processes}\n")
            worker.stdin.flush()
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        return time.monotonic() - began

    return run


def triptych(stack: ExitStack, args: argparse.Namespace, overrides: list[str]) -> Run:
    """Triptych, all prompts at once."""
    model = [f'model.path="{args.model}"', f"pipeline.queue_limit={args.images}"]
    pipeline = stack.enter_context(private_pipeline(None, [*model, *overrides]))
    client = stack.enter_context(Client(pipeline.address, 60.0))

    def run(images: int) -> float:
        began = time.monotonic()
        for number in range(images):
            client.send(
                wire.Submit(
                    id=str(number),
                    prompt=PROMPT,
                    negative_prompt=NEGATIVE,
                    seed=number,
                    steps=args.steps,
                    guidance_scale=args.guidance,
                )
            )
        left = images
        while left:
            event = client.receive(600.0)
            if event is None or isinstance(event[0], wire.Failed):
                raise SystemExit(f"a prompt was not finished: {event}")
            left -= isinstance(event[0], wire.Done)
        return time.monotonic() - began

    run(images_of_a_warm_up(args))
    return run


def images_of_a_warm_up(args: argparse.Namespace) -> int:
    """A few, fewer where they are slow."""
    return 8 if args.images >= 32 else 1


def main() -> None:
    """Load all, run the rounds, print rates and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--model", type=Path, default=demo_folder())
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--without", action="append", default=[], help="leave a contender out, by its name")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], Run]] = {
            "genai": lambda: genai(stack, args, 1),
            "genai x2": lambda: genai(stack, args, 2),
            "triptych": lambda: triptych(stack, args, []),
        }
        if args.set:
            contenders["triptych tuned"] = lambda: triptych(stack, args, args.set)
        runs = {name: start() for name, start in contenders.items() if name not in args.without}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(args.rounds):
            for name in [*runs, *reversed(runs)]:
                rates[name].append(args.images / runs[name](args.images))
                print(f"round {number + 1}: {name:15s} {rates[name][-1]:.3f} images/s", flush=True)
    for name, found in rates.items():
        line = f"{name:15s} {median(found):.3f} images/s ({min(found):.3f} to {max(found):.3f})"
        for peer in ("genai", "genai x2"):
            if peer in rates and not name.startswith("genai"):
                ratios = [mine / theirs for mine, theirs in zip(found, rates[peer], strict=True)]
                line += f", {median(ratios):.2f} of {peer} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)
    if args.json:
        args.json.write_text(json.dumps(rates))


if __name__ == "__main__":
    main()
