"""Ways for the stages to share the cores, beside each other in one interleaved run.

    python -m benchmarks.sharing [--model FOLDER] [--steps N] [--images N] [--in-flight N] [--rounds N] [--one-way]
                                 [--json FILE]

Timeslice: all stages on all cores, the kernel decides. Turns: all on all, one at a time, by leases. Apart: the U-Net on
cores of its own, text encoder and VAE together on the others (a quarter, at least one). Three pipelines are loaded and
idle while another works; a round goes through them forwards and backwards, or forwards only.
"""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from orchestrator.bench.drive import Record, play
from orchestrator.bench.workload import DEFAULT, Arrival, Closed, MixEntry, arrivals
from orchestrator.client import Client, own_pipeline
from stages.core import cores


def modes() -> dict[str, list[str]]:
    """The ways, as `--set` overrides. Raises SystemExit on a single core, where there is nothing to share out."""
    own = sorted(cores.allowed())
    if len(own) < 2:
        raise SystemExit("one core can only be shared by timeslice")
    part = max(1, len(own) // 4)
    few, rest = cores.render(own[-part:]), cores.render(own[:-part])
    return {
        "timeslice": ["pipeline.share=timeslice"],
        "turns": ["pipeline.share=turns"],
        "apart": [f"stage.unet.cores={rest}", f"stage.vae.cores={few}", f"stage.text.cores={few}"],
    }


def load(steps: int | None, images: int, seed: int) -> list[Arrival]:
    """The prompts of one run, all different, so that none is encoded for another."""
    asked = msgspec.structs.replace(DEFAULT[0].submit, steps=steps)
    mix = tuple(
        MixEntry("image", 1.0, msgspec.structs.replace(asked, prompt=f"{asked.prompt}, {seed}-{number}"))
        for number in range(images)
    )
    return arrivals(mix, Closed(), images, seed)


def main() -> None:
    """Load all, run the rounds, print one line a mode."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one-way", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = args.model if args.model == "demo" else str(Path(args.model).resolve())
    rates: dict[str, list[float]] = {}
    records: dict[str, list[Record]] = {}
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        for name, overrides in modes().items():
            keys = [f'model.path="{model}"', *args.set, *overrides]
            clients[name] = stack.enter_context(own_pipeline(None, keys))
            play(clients[name], load(1, 1, 0))  # loaded and warm before the next one loads
            print(f"{name} is loaded", flush=True)
        for number in range(args.rounds):
            back = [] if args.one_way else reversed(clients)
            for place, name in enumerate([*clients, *back]):
                played = play(clients[name], load(args.steps, args.images, 1 + 10 * number + place), args.in_flight)
                if failed := [record.message for record in played.records if record.code is not None]:
                    raise SystemExit(f"{name}: {failed[0]}")
                rates.setdefault(name, []).append(args.images / played.span_s)
                records.setdefault(name, []).extend(played.records)
                print(f"round {number + 1}: {name:9s} {rates[name][-1]:.4f} images/s", flush=True)
    for name, found in rates.items():
        ratios = [mine / theirs for mine, theirs in zip(found, rates["timeslice"], strict=True)]
        p99 = np.percentile([record.latency_s for record in records[name] if record.latency_s is not None], 99)
        print(
            f"{name:9s} {median(found):.4f} images/s ({min(found):.4f} to {max(found):.4f}), "
            f"{median(ratios):.2f} of timeslice ({min(ratios):.2f} to {max(ratios):.2f}), latency p99 {p99:.2f} s"
        )
    if args.json:
        args.json.write_text(json.dumps(rates))


if __name__ == "__main__":
    main()
