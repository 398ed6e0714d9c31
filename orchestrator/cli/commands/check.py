"""`triptych check`: whether a configuration runs on this machine, and how; found out by starting it."""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli.connection import connect
from orchestrator.cli.options import Private, add_config_argument, add_json, config_path
from orchestrator.cli.parser import Parser
from orchestrator.cli.terminal.units import memory
from orchestrator.models.footprint import footprint
from orchestrator.models.locate import card
from orchestrator.plan import Machine, Plan, plan
from stages.core import config, cores, wire
from stages.core.errors import ConfigError, TriptychError
from stages.core.schedule_names import own_schedule

_HUB = "triptych: "
"""Beginning of the lines that `serve` writes on its standard error."""

_LOADED = re.compile(r"\S+ loaded in ")


class TrialStart(msgspec.Struct, frozen=True):
    """The observations on a pipeline that was started for a check."""

    start_s: float
    """Seconds from its start until it served, every stage's numerics tested."""
    stages: tuple[wire.StageStatus, ...]
    remarks: tuple[str, ...]
    """Lines of the stages on standard error: settings that are not honoured, or not computed as asked."""


def arguments(parser: Parser) -> None:
    """Declare the options."""
    add_config_argument(parser)
    parser.add_argument(
        "--no-start",
        action="store_true",
        help="only plan: do not start the pipeline to test the model's numerics and see what it takes",
    )
    add_json(parser, "one JSON object")


def run(args: argparse.Namespace) -> int:
    """Find the model, plan, start, and show what came of it.

    Raises ConfigError or ModelError for what cannot run, StartFailed for what does not start.
    """
    loaded = config.load(config_path(args), args.set)
    machine = Machine.here()
    planned = plan(loaded, card(loaded), machine)
    found = facts(loaded, planned, machine)
    if not args.json:
        show(found)
    try:
        _room(found["memory"])
        trial = None if args.no_start else start(Private(config_path(args), tuple(args.set)), args.debug)
    except TriptychError as error:
        if args.json:
            print(json.dumps(found | {"trial": None, "error": {"code": error.code, "message": error.message}}))
        raise
    if args.json:
        print(json.dumps(found | {"trial": msgspec.to_builtins(trial), "error": None}))
    elif trial is not None:
        show_trial(trial)
    return 0


def facts(loaded: config.Config, planned: Plan, machine: Machine) -> dict[str, Any]:
    """The facts that are known before anything is started."""
    model, need = planned.card, footprint(planned)
    return {
        "model": {
            "name": model.name,
            "family": model.family,
            "path": str(model.path),
            "native_size": f"{model.native[0]}x{model.native[1]}",
            "sizes": [f"{width}x{height}" for width, height in planned.sizes],
            "precision": loaded.model.precision,
            "steps": model.steps,
            "guidance_scale": model.guidance_scale,
            "schedule": model.schedule or own_schedule(model.scheduler),
        },
        "share": planned.share,
        "machine": {
            "cores": cores.render(machine.cores),
            "cpu_quota": machine.quota if machine.quota != float("inf") else None,
        },
        "stages": [
            {"name": stage.name, "cores": stage.cores, "threads": stage.threads, "bind_threads": stage.bind_threads}
            for stage in planned.stages
        ],
        "arena": {
            "bytes": planned.arena_bytes,
            "pools": [{"name": p.name, "slots": p.count, "slot_bytes": p.slot_bytes} for p in planned.pools],
        },
        "memory": msgspec.to_builtins(need) | {"available_bytes": machine.memory_available},
        "listen": {"socket": loaded.listen.socket},
    }


def start(target: Private, debug: bool) -> TrialStart:
    """Start the pipeline at an address of its own, wait until it serves, look at it, and stop it."""
    began = time.monotonic()
    with connect(target, debug) as client, _loading():
        stages = client.wait_serving().stages
        took = time.monotonic() - began
        said = client.pipeline.stderr() if client.pipeline is not None else ""
        return TrialStart(round(took, 3), stages, remarks(said, [stage.name for stage in stages]))


def _loading() -> AbstractContextManager[object]:
    if not sys.stderr.isatty():
        return nullcontext()
    return Console(stderr=True).status("starting the pipeline to look at it")


def remarks(stderr: str, stages: Sequence[str]) -> tuple[str, ...]:
    """The lines in which the hub tells of `stages`, each once, but for the news that they have loaded."""
    told = (line.removeprefix(_HUB) for line in stderr.splitlines() if line.startswith(_HUB))
    about = [line for line in told if line.startswith(tuple(stages))]
    return tuple(dict.fromkeys(line for line in about if not _LOADED.match(line)))


def _room(need: dict[str, int]) -> None:
    """Raise ConfigError if too little memory is available."""
    if need["needed_bytes"] > need["available_bytes"]:
        raise ConfigError(
            f"about {memory(need['needed_bytes'])} of memory are needed, {memory(need['available_bytes'])} are "
            "available; free some, or take a smaller model or fewer replicas"
        )


def show(found: dict[str, Any]) -> None:
    """Print the facts that are known before anything is started."""
    model, need, arena = found["model"], found["memory"], found["arena"]
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", f"{model['name']} ({model['family']}), {model['path']}")
    sizes = ", ".join(model["sizes"])
    table.add_row(
        "pictures",
        f"{sizes} (trained for {model['native_size']}), {model['steps']} steps, guidance {model['guidance_scale']:g}",
    )
    table.add_row("schedule", model["schedule"] or "the model's own is not served: requests have to name one")
    table.add_row("precision", model["precision"])
    quota = found["machine"]["cpu_quota"]
    table.add_row("machine", f"cores {found['machine']['cores']}" + (f", {quota:g} of them granted" if quota else ""))
    table.add_row("sharing", found["share"])
    for stage in found["stages"]:
        bound = ", each bound to its core" if stage["bind_threads"] else ""
        threads = f"{stage['threads']} thread{'s' if stage['threads'] > 1 else ''}"
        table.add_row(stage["name"], f"cores {stage['cores']}, {threads}{bound}")
    pools = ", ".join(f"{p['slots']} {p['name']} of {memory(p['slot_bytes'])}" for p in arena["pools"])
    table.add_row("arena", f"{memory(arena['bytes'])}: {pools}")
    table.add_row(
        "memory",
        f"about {memory(need['needed_bytes'])} while loading (twice the weights, the processes, the arena); "
        f"{memory(need['available_bytes'])} available",
    )
    table.add_row("listens at", found["listen"]["socket"])
    Console(highlight=False).print(table)


def show_trial(trial: TrialStart) -> None:
    """Print the observations on the pipeline that was started."""
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("started", "computes in", "cores seen"):
        rows.add_column(name, no_wrap=True)
    for name in ("threads", "load", "PSS"):
        rows.add_column(name, justify="right", no_wrap=True)
    for stage in trial.stages:
        strayed = "red" if stage.cores_seen != stage.cores_asked else ""
        load = "-" if stage.load_s is None else f"{stage.load_s:.1f} s"
        rows.add_row(
            Text(stage.name, style="bold"),
            stage.precision,
            Text(stage.cores_seen, style=strayed),
            str(stage.threads),
            load,
            memory(stage.pss_bytes),
        )
    console = Console(highlight=False)
    console.print(rows)
    for remark in trial.remarks:
        console.print(Text(remark, style="yellow"))
    held = memory(sum(stage.pss_bytes for stage in trial.stages))
    console.print(f"serves after {trial.start_s:.1f} s, self-tests included; {held} of memory in use")
