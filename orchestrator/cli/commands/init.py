"""`triptych init`: a configuration to begin with, its keys explained."""

import argparse
from pathlib import Path

from orchestrator import output, shipped_configs
from orchestrator.cli import parser as read
from orchestrator.cli.parser import Parser
from stages.core.errors import ConfigError


def arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "name",
        choices=shipped_configs.NAMES,
        metavar="NAME",
        help="demo (the embedded model), lcm (four steps), or sd15 (Stable Diffusion, every key explained)",
    )
    parser.add_argument(
        "-o", "--out", type=read.path, default=Path("triptych.toml"), metavar="FILE", help="default: triptych.toml"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")


def run(args: argparse.Namespace) -> int:
    """Write the file. Raises ConfigError where there is one already, or none can be written."""
    if args.out.is_file() and not args.force:
        raise ConfigError(f"{args.out} is there already; name another file with -o, or replace it with --force")
    output.check(args.out, "the configuration")
    output.write(args.out, shipped_configs.text(args.name), "the configuration")
    print(f"written: {args.out} (triptych check {args.out} says whether it runs here)")
    return 0
