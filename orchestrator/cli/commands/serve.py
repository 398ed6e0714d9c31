"""`triptych serve`: one pipeline, until SIGTERM."""

import argparse
import json
import logging
from collections import Counter
from contextlib import nullcontext

import msgspec

from orchestrator.cli.options import add_config_argument, add_json, config_path
from orchestrator.cli.parser import Parser
from orchestrator.gateway.child import gateway_child, listening, url
from orchestrator.hub import hub
from orchestrator.output import CannotWrite
from stages.core import config

log = logging.getLogger("triptych")


def arguments(parser: Parser) -> None:
    """Declare the options."""
    add_config_argument(parser)
    add_json(parser, "write the ready line as JSON")
    # Whoever starts a pipeline for itself holds the other end; see orchestrator.client.launch.
    parser.add_argument("--lifeline-fd", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve."""
    loaded = config.load(config_path(args), args.set)
    logging.basicConfig(format="triptych: %(message)s", level=logging.DEBUG if args.debug else logging.INFO)
    private = args.lifeline_fd is not None  # it has one client, which does not speak HTTP
    with nullcontext() if private else listening(loaded) as http:
        page = "" if http is None else url(http)
        return hub.serve(
            loaded,
            ready=lambda ready: _say(line(ready, args.json, page)),
            lifeline=args.lifeline_fd,
            beside=lambda address: [] if http is None else [gateway_child(loaded, address, http)],
        )


def _say(ready_line: str) -> None:
    """Print it; that nobody can read it, or its terminal is gone, is no reason not to serve."""
    try:
        print(ready_line, flush=True)
    except (CannotWrite, BrokenPipeError) as error:
        log.warning("the ready line could not be written: %s", error)


def line(ready: hub.Ready, as_json: bool, page: str = "") -> str:
    """The ready line, for people or for programs; `page` is the address of the HTTP gateway, if there is one."""
    if as_json:
        return json.dumps(msgspec.to_builtins(ready) | ({"http": page} if page else {}))
    replicas = Counter(stage.kind for stage in ready.stages)
    stages = " | ".join(
        f"{stage.kind if replicas[stage.kind] == 1 else stage.name} {stage.cores_seen or stage.cores_asked}"
        for stage in ready.stages
    )
    where = f"{ready.address} and {page}" if page else ready.address
    return f"triptych: ready at {where} with {ready.model}, {stages}, loaded in {ready.load_s:.1f} s"
