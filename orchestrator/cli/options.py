"""Options that several subcommands have, and what they mean together.

The command line beats the environment (TRIPTYCH_CONFIG, TRIPTYCH_CONNECT, TRIPTYCH_OUT), which beats the file.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.cli import parser as read
from orchestrator.cli.parser import Parser
from stages.core import wire
from stages.core.config import ListenConfig, expand_home
from stages.core.errors import ConfigError


class Remote(NamedTuple):
    """A pipeline that somebody else keeps running."""

    address: str


class Private(NamedTuple):
    """A pipeline of this command's own."""

    config: Path | None
    overrides: tuple[str, ...]


def add_overrides(parser: Parser) -> None:
    """`--set`, for commands that take a configuration."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=read.text,
        metavar="SECTION.KEY=VALUE",
        help="beat one key of the configuration; may be repeated (stage.unet.threads=2 for a stage's)",
    )


def add_config_argument(parser: Parser) -> None:
    """`[CONFIG]`, for commands about a configuration."""
    parser.add_argument(
        "config", nargs="?", type=read.path, metavar="CONFIG", help="TOML file; none: the embedded model"
    )
    add_overrides(parser)


def add_target(parser: Parser) -> None:
    """`--connect`, or what is needed to start a pipeline instead."""
    add_connect(parser, "use the running pipeline at this address instead of starting one")
    parser.add_argument("-c", "--config", type=read.path, metavar="FILE", help="TOML file; none: the embedded model")
    add_overrides(parser)


def add_connect(parser: Parser, does: str) -> None:
    """`--connect`."""
    parser.add_argument("--connect", type=read.text, metavar="ADDRESS", help=does)


def config_path(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file that was named, if one was."""
    named: Path | None = args.config
    variable = environ.get("TRIPTYCH_CONFIG")
    return named or (read.path(variable) if variable else None)


def target(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Remote | Private:
    """The pipeline that prompts go to. Raises ConfigError when the command line names two."""
    configured = args.config is not None or args.set
    if args.connect is not None:
        if configured:
            raise ConfigError("--connect uses a running pipeline, -c and --set start one: name one of them")
        return Remote(expand_home(args.connect))
    connect = environ.get("TRIPTYCH_CONNECT")
    if connect and not configured:
        return Remote(expand_home(connect))
    return Private(config_path(args, environ), tuple(args.set))


def address(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> str:
    """The running pipeline that a command asks about."""
    return expand_home(args.connect or environ.get("TRIPTYCH_CONNECT") or ListenConfig().socket)


def add_pictures(parser: Parser) -> None:
    """The options of pictures: how they are made, where they go, what is printed about them.

    An option about the request is named, by its `dest`, after the field of wire.Submit.
    """
    parser.add_argument(
        "--negative",
        dest="negative_prompt",
        type=read.text,
        default="",
        metavar="TEXT",
        help="what should not be in it",
    )
    parser.add_argument("--steps", type=read.count, metavar="N", help="denoising steps (default: the model's)")
    parser.add_argument(
        "--guidance",
        dest="guidance_scale",
        type=read.finite,
        metavar="SCALE",
        help="guidance scale (default: the model's)",
    )
    parser.add_argument(
        "--guidance-rescale",
        type=read.share,
        default=0.0,
        metavar="SHARE",
        help="how far contrast is pulled back to the unguided one's, 0 to 1 (default: 0)",
    )
    parser.add_argument("--seed", type=read.seed, metavar="N", help="same seed, same picture (default: random)")
    parser.add_argument("--size", type=read.size, metavar="WxH", help="pixels (default: the model's)")
    parser.add_argument("-n", type=read.count, default=1, metavar="N", help="pictures of each prompt (default: 1)")
    parser.add_argument("--schedule", type=read.text, metavar="NAME", help="noise schedule (default: the model's)")
    parser.add_argument(
        "--syntax",
        choices=("plain", "a1111"),
        default="plain",
        help="how prompts are read: as they are, or with weights such as (word:1.2) (default: plain)",
    )
    parser.add_argument(
        "--clip-skip", type=read.layers, default=0, metavar="N", help="last layers of the text encoder to skip"
    )
    parser.add_argument(
        "--format",
        dest="output_format",
        choices=("png", "jpeg", "webp"),
        default="png",
        help="file format (default: png)",
    )
    parser.add_argument(
        "-o", "--out", type=read.path, metavar="DIR", help="where the pictures go (default: ./triptych-out)"
    )
    parser.add_argument("--trace", type=read.path, metavar="FILE", help="write what ran when, for ui.perfetto.dev")
    add_json(parser, "print one JSON object a picture")


def request(args: argparse.Namespace) -> wire.Submit:
    """The request that these options describe, without id and prompt."""
    width, height = args.size or (None, None)
    named = {field: value for field, value in vars(args).items() if field in wire.Submit.__struct_fields__}
    derived = {"id": "", "prompt": "", "width": width, "height": height, "trace": args.trace is not None}
    return wire.Submit(**(named | derived))


def add_json(parser: Parser, does: str) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=does)


def out(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for pictures."""
    return args.out or read.path(environ.get("TRIPTYCH_OUT") or "triptych-out")
