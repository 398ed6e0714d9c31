"""The `triptych` command: finds the subcommand, runs it, and turns what it raises into one line and an exit status."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Protocol, cast

from orchestrator import standard_streams
from orchestrator.cli.parser import Parser
from stages.core.errors import TriptychError

COMMANDS = {
    "init": "write a configuration to begin with",
    "serve": "launch a pipeline and keep it running",
    "generate": "make pictures of the prompts named on the command line",
    "stream": "make pictures of the prompts in a file, or as they are piped in",
    "status": "show what a running pipeline is doing",
    "bench": "measure throughput, latency, memory, and what limits them",
    "trace": "write what a running pipeline did in the last seconds, for ui.perfetto.dev",
    "check": "say whether and how a configuration runs on this machine",
    "tune": "find the fastest configuration that keeps a latency, by measuring",
    "plan": "compare layouts for a machine that is not here, by simulation",
    "models": "list the models here, look into one, or get one from the hub",
}
"""The subcommands; each is the module of that name in orchestrator.cli.commands, imported only when it is asked for."""


class Command(Protocol):
    """The functions that the module of a subcommand has."""

    def arguments(self, parser: Parser) -> None:
        """Declare the subcommand's options."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the subcommand, and return the exit status."""


class _Version(argparse.Action):
    """`--version`, looked up only then: reading package metadata is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("triptych")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"triptych {found}")
        parser.exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's) and return its exit status."""
    standard_streams.prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words[: words.index("--")] if "--" in words else "--debug" in words
    try:
        status = _run(words)
        sys.stdout.flush()  # what cannot be written is told now and not when Python ends
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except TriptychError as error:
        return _fail(error.message, error.exit_status, debug)
    except Exception as error:
        return _fail(f"internal: {type(error).__name__}: {error} (--debug shows where; please report it)", 1, debug)


def _run(words: Sequence[str]) -> int:
    try:
        command, args = parse(words)
        return command.run(args)
    except SystemExit as leaving:  # argparse, after its line
        return leaving.code if isinstance(leaving.code, int) else 2


def parse(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The subcommand's module and its options. Raises SystemExit as argparse does, its message written."""
    split = next((number for number, word in enumerate(words) if not word.startswith("-")), len(words))
    top = Parser(
        "triptych",
        "Stable Diffusion on CPUs: three processes, joined by pipes, one picture after another.",
        epilog="\n".join(["commands:", *(f"  {name:10}{does}" for name, does in COMMANDS.items())]),
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and leave")
    _debug_option(top)
    top.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below; each has --help")
    name = top.parse_args(words[: split + 1]).command
    command = cast("Command", importlib.import_module(f"orchestrator.cli.commands.{name}"))
    parser = Parser(f"triptych {name}", f"Triptych: {COMMANDS[name]}.")
    command.arguments(parser)
    _debug_option(parser)
    rest = words[split + 1 :]
    # Intermixed, so that a prompt may also stand behind an option; but that reads options behind `--`, too.
    args = parser.parse_args(rest) if "--" in rest else parser.parse_intermixed_args(rest)
    args.debug = "--debug" in words[:split] or args.debug
    return command, args


def _debug_option(parser: Parser) -> None:
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"triptych: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
