"""`triptych check`: whether a configuration can run on this machine, and how it would."""

import argparse
import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.cli.amounts import memory
from orchestrator.cli.options import add_config_argument, add_json, config_path
from orchestrator.cli.parser import Parser
from orchestrator.plan import Machine, Plan, plan
from orchestrator.weights import locate
from stages.core import config, cores
from stages.core.errors import ConfigError
from stages.core.model import ir, read_card
from stages.core.wire import Kind

_PROCESS_BYTES = 200 << 20
"""Python, OpenVINO and a tokenizer: what a stage process takes beside its model, about."""


def arguments(parser: Parser) -> None:
    """Declare the options."""
    add_config_argument(parser)
    add_json(parser, "one JSON object")


def run(args: argparse.Namespace) -> int:
    """Find the model, plan, and show the plan. Raises ConfigError or ModelError for what cannot run."""
    loaded = config.load(config_path(args), args.set)
    machine = Machine.here()
    planned = plan(loaded, read_card(locate(loaded)), machine)
    found = facts(loaded, planned, machine)
    if args.json:
        print(json.dumps(found))
    else:
        show(found)
    need = found["memory"]
    if need["needed_bytes"] > need["available_bytes"]:
        raise ConfigError(
            f"about {memory(need['needed_bytes'])} of memory are needed, {memory(need['available_bytes'])} are "
            "available; free some, or take a smaller model or fewer replicas"
        )
    return 0


def facts(loaded: config.Config, planned: Plan, machine: Machine) -> dict[str, Any]:
    """What the table and the JSON say."""
    card = planned.card
    sizes = {part: ir(card.path, part).with_suffix(".bin").stat().st_size for part in card.parts}
    text = sum(sizes[part] for part in card.text_encoders)
    by_kind: dict[Kind, int] = {"text": text, "unet": sizes["unet"], "vae": sizes["vae_decoder"]}
    loading = sum(by_kind[stage.kind] for stage in planned.stages)
    return {
        "model": {
            "name": card.name,
            "family": card.family,
            "path": str(card.path),
            "native_size": f"{card.native[0]}x{card.native[1]}",
            "sizes": [f"{width}x{height}" for width, height in planned.sizes],
            "precision": loaded.model.precision,
            "steps": card.steps,
            "guidance_scale": card.guidance_scale,
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
        "memory": {
            "weights_bytes": loading,
            # While a model loads, its file is mapped beside the weights that are repacked from it.
            "needed_bytes": 2 * loading + planned.arena_bytes + len(planned.stages) * _PROCESS_BYTES,
            "available_bytes": machine.memory_available,
        },
        "listen": {"socket": loaded.listen.socket},
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
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
