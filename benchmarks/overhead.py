"""The overhead of Triptych: the time of a hop, and the CPU time spent outside of model forwards.

    python -m benchmarks.overhead [-c CONFIG] [--images N] [--steps N]

Prompts go one by one (so every stage is idle when its job arrives), then all at once. A hop is the time from one
stage putting a job down to the next, idle stage taking it up: two messages and the router's decision.
"""

import argparse
from pathlib import Path

from orchestrator.client import Client, own_pipeline
from stages.core import wire

PROMPT = "a photo of an astronaut riding a horse on mars"


def main() -> None:
    """Run both loads and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    for load in ("one by one", "all at once"):
        overrides = [f"pipeline.queue_limit={args.images}"]
        with own_pipeline(args.config, overrides) as client:
            warm_up(client, args.steps)
            before = client.status()
            if load == "one by one":
                for number in range(args.images):
                    finish(client, submit(number, args.steps))
            else:
                finish(client, *(submit(number, args.steps) for number in range(args.images)))
            report(load, before, client.status(), args.images)


def submit(number: int, steps: int | None) -> wire.Submit:
    """One prompt."""
    return wire.Submit(id=f"{number}", prompt=PROMPT, negative_prompt="blurry", seed=number, steps=steps)


def warm_up(client: Client, steps: int | None) -> None:
    """A few images that do not count for the CPU shares; their hops are few among the others."""
    for number in range(3):
        finish(client, submit(number, steps))


def finish(client: Client, *prompts: wire.Submit) -> None:
    """Send prompts and wait for all of them."""
    for events in [client.submit(prompt) for prompt in prompts]:
        for _ in events:
            pass


def report(load: str, before: wire.Status, after: wire.Status, images: int) -> None:
    """Print what the status says after the load."""
    print(f"{load}: {images} images, hop p50 {after.hop_us.p50} us, p99 {after.hop_us.p99} us")
    for stage in after.stages:
        share = stage.cpu_outside_infer_share
        print(f"  {stage.name}: {'-' if share is None else f'{share:.1%}'} of its CPU time outside of the model")
    print(f"  hub: {(after.hub_cpu_s - before.hub_cpu_s) / images * 1000:.2f} ms of CPU time an image")


if __name__ == "__main__":
    main()
