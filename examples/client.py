"""Several prompts at once, sent to a running server: the progress of each as it comes, and the pictures as files.

    triptych serve &
    python examples/client.py "a photo of a fox in the snow" "pixel art of a castle at sunset"

Where one prompt at a time will do, `client.submit` gives a stream of its events (README, "From a program").
"""

import argparse
import sys
from pathlib import Path

from orchestrator.client import Client
from stages.core import wire


def main() -> int:
    """Send all prompts, follow them, save what comes; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="Stream prompts to a running server.")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    parser.add_argument("--connect", default="tcp://127.0.0.1:7801", metavar="ADDRESS")
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("-o", "--out", type=Path, default=Path("pictures"), metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    with Client(options.connect) as client:
        in_work = {str(number): prompt for number, prompt in enumerate(options.prompts, 1)}
        for id, prompt in in_work.items():  # all at once: while one is decoded, the next is denoised
            client.send(wire.Submit(id=id, prompt=prompt, steps=options.steps))
        while in_work:
            event = client.receive(1.0)  # raises NoAnswer when the server is gone
            if event is None:
                continue
            message, picture = event
            match message:
                case wire.Accepted(id=id, position=position):
                    print(f"{id}: accepted, {position} before it: {in_work[id]}")
                case wire.Progress(id=id, stage=stage, step=step, steps=steps):
                    print(f"{id}: {stage} {step}/{steps}")
                case wire.Image(id=id, format=format, seed=seed) if picture is not None:
                    file = options.out / f"{id}-{seed}.{format}"
                    file.write_bytes(picture)
                    print(f"{id}: {file}")
                case wire.Done(id=id):
                    del in_work[id]
                case wire.Failed(id=id, code=code, message=why):
                    failures += 1
                    del in_work[id]
                    print(f"{id}: {code}: {why}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
