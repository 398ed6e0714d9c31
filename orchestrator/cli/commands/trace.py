"""`triptych trace`: what a running pipeline did in the last seconds, as a file for ui.perfetto.dev."""

import argparse
from pathlib import Path

from orchestrator import output
from orchestrator.cli import options
from orchestrator.cli import parser as read
from orchestrator.cli.parser import Parser, seconds
from orchestrator.cli.terminal.units import images
from orchestrator.client import Client
from orchestrator.trace import events as trace_events
from orchestrator.trace import timeline
from orchestrator.trace.recording import forwards, jobs

_DEFAULT = Path("triptych-trace.json")


def arguments(parser: Parser) -> None:
    """Declare the options."""
    options.add_connect(parser, "address of the pipeline (default: tcp://127.0.0.1:7801)")
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=30.0,
        metavar="N",
        help="how far back (default: 30); the server remembers the last 65,536 events, some minutes of full load",
    )
    parser.add_argument(
        "-o", "--out", type=read.path, default=_DEFAULT, metavar="FILE", help=f"where to (default: ./{_DEFAULT})"
    )


def run(args: argparse.Namespace) -> int:
    """Ask and write."""
    output.check(args.out, "the trace")
    with Client(options.address(args)) as client:
        recording = client.trace(args.seconds)
    events = timeline.events(recording)
    trace_events.write(args.out, events)
    slices = [event for event in events if event["ph"] == "X" and event["cat"] != "job"]
    if slices:
        seen = {job for forward in forwards(recording) for job in forward.jobs}
        known = jobs(recording).keys() & seen
        print(f"{args.out}: {len(slices)} forwards for {images(len(known))}; open it at https://ui.perfetto.dev")
    else:
        print(f"{args.out}: no stage did anything in the last {args.seconds:g} s")
    return 0
