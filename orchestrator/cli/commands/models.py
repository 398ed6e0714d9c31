"""`triptych models`: the models on this machine, what one of them is, and getting one from the hub."""

import argparse
import json
import os
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.cli import parser as read
from orchestrator.cli.options import add_json
from orchestrator.cli.parser import Parser
from orchestrator.cli.terminal.units import memory
from orchestrator.models import cache as hf_cache
from orchestrator.models.catalogue import CatalogueEntry, catalogue, model_dirs
from orchestrator.models.download import download
from orchestrator.models.inspection import Inspection, OwnSchedule, Part, TextEncoder, inspect
from orchestrator.models.locate import find
from orchestrator.plan import Machine
from stages.core.errors import ConfigError, ModelError

_PIPE_COLUMNS = 160
"""Width of the table where there is no terminal to fit it into."""

_UNSERVED = "not served: requests have to name another, or model.schedule does"

_SHARE_TOLD = 0.005
"""Share of a part's bytes from which an element type is shown; shapes and indices are less."""


def arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.epilog = (
        "actions:\n"
        "  list           the embedded models, those in this folder, $TRIPTYCH_MODELS and in the Hugging Face cache\n"
        "  inspect MODEL  what a folder, a hub id in the cache, or an embedded model is, and whether it can be run\n"
        "  pull MODEL     bring a hub id into the Hugging Face cache, and say where it lies\n"
    )
    parser.add_argument("action", choices=("list", "inspect", "pull"), metavar="ACTION", help="list | inspect | pull")
    parser.add_argument(
        "model", nargs="?", type=read.text, metavar="MODEL", help="a folder, a hub id, demo, or demo-lcm"
    )
    parser.add_argument("--revision", type=read.text, metavar="NAME", help="pull this branch, tag or commit")
    add_json(parser, "one JSON object (list: one a line)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for. Raises ConfigError for what is no such action, ModelError for what is no such model."""
    if (args.model is None) is not (args.action == "list"):
        wrong = "takes no MODEL" if args.model else "needs a MODEL"
        raise ConfigError(f"models {args.action} {wrong} (see triptych models --help)")
    if args.revision is not None and args.action != "pull":
        raise ConfigError("--revision is for models pull; the cache is listed with its revisions")
    match args.action:
        case "list":
            _list(args.json)
        case "inspect":
            _inspect(args.model, args.json)
        case _:
            folder = download(args.model, args.revision)
            print(json.dumps({"model": args.model, "path": str(folder)}) if args.json else folder)
    return 0


def _list(as_json: bool) -> None:
    folders = [Path(), *model_dirs(os.environ.get("TRIPTYCH_MODELS", ""))]
    entries = catalogue(folders, hf_cache.root())
    if as_json:
        for entry in entries:
            print(json.dumps(msgspec.to_builtins(entry)))
        return
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        print(lines(entry, width))


def lines(entry: CatalogueEntry, width: int) -> str:
    """An entry for people; the path stands on a line of its own, whole, so that it can be copied."""
    facts = f"{entry.name:{width}}  {entry.family or '-':4}  {memory(entry.size_bytes):>8}\n  {entry.path}"
    return f"{facts}\n  cannot be run: {entry.reason}" if entry.reason else facts


def _inspect(model: str, as_json: bool) -> None:
    folder = find(model, Path.cwd())
    if folder is None:
        raise ModelError(f"{model}: no folder here, and not in the cache; `triptych models pull {model}` downloads it")
    try:
        found = inspect(folder, Machine.here())
    except ModelError as error:
        if as_json:
            print(json.dumps({"path": str(folder), "can_run": False, "reason": error.message}))
        raise
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_PIPE_COLUMNS)
        console.print(table(found))
    if found.reason is not None:
        raise ModelError(found.reason)


def table(found: Inspection) -> Table:
    """An inspection for people."""
    rows = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("model", f"{found.name} ({found.family}), {found.path}")
    rows.add_row("pictures", f"{found.native_size} (trained for), {found.downscale} pixels a latent each way")
    rows.add_row("defaults", f"{found.steps} steps, guidance {found.guidance_scale:g}")
    distilled = "the U-Net was distilled to take the scale as an input: one row a picture"
    rows.add_row("guidance", distilled if found.guidance_distilled else "classifier-free: two rows a picture above 1")
    pooled = f", and a pooled one {found.pooled_dim} wide" if found.pooled_dim else ""
    rows.add_row("prompts", f"embeds {found.embed_dim} wide{pooled}")
    rows.add_row("schedule", _schedule(found.schedule))
    rows.add_row("predicts", found.schedule.prediction_type)
    encoders = {encoder.name: encoder for encoder in found.text_encoders}
    for part in found.parts:
        encoder = f"; {_encoder(encoders[part.name])}" if part.name in encoders else ""
        rows.add_row(part.name, f"{memory(part.bytes)}, stored in {_stored(part)}{encoder}")
    need = found.memory
    rows.add_row(
        "memory",
        f"about {memory(need.needed_bytes)} while loading (twice the weights, the processes, the arena); "
        f"{memory(need.available_bytes)} available",
    )
    short = need.needed_bytes > need.available_bytes
    can = "yes, but not here and now: too little memory is available" if short else "yes"
    rows.add_row("can be run", can if found.can_run else f"no: {found.reason}")
    return rows


def _encoder(encoder: TextEncoder) -> str:
    width = "width unknown" if encoder.embed_width is None else f"{encoder.embed_width} wide"
    return f"{width}, {'no tokenizer' if encoder.tokenizer is None else f'tokenizer in {encoder.tokenizer}'}"


def _stored(part: Part) -> str:
    """Element types with their shares, those that hold next to nothing left out."""
    total = sum(part.stored.values()) or 1
    shares = {kind: size / total for kind, size in part.stored.items() if size / total >= _SHARE_TOLD}
    return ", ".join(kind if len(shares) == 1 else f"{kind} ({share:.0%})" for kind, share in shares.items())


def _schedule(schedule: OwnSchedule) -> str:
    values = ", ".join(
        key if value is True else f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in schedule.settings.items()
        if value is not False
    )
    return f"{schedule.class_name} ({schedule.name or _UNSERVED}): {values}"
