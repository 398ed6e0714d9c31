"""`triptych stream`: prompts from a file or a pipe as they come, with a bar for each stage."""

import argparse
import os
import sys
from contextlib import ExitStack

from orchestrator.cli import work
from orchestrator.cli.options import add_pictures, add_target
from orchestrator.cli.parser import Parser
from orchestrator.cli.prompts import Lines, parse
from orchestrator.cli.report import Report
from orchestrator.cli.session import Session, exit_status
from stages.core import wire
from stages.core.errors import BadRequest, ConfigError


class LineSource:
    """Prompts that are read one line after another."""

    def __init__(self, lines: Lines, defaults: wire.Submit) -> None:
        self._lines = lines
        self._defaults = defaults

    @property
    def ended(self) -> bool:
        """Whether the last line has been read."""
        return self._lines.ended

    def read(self, session: Session, report: Report, wait_s: float) -> bool:
        """Ask for the prompt of the next line that is not blank."""
        while (taken := self._lines.take(wait_s)) is not None:
            number, line = taken
            try:
                request = parse(line, self._defaults)
            except BadRequest as error:
                report.failure(session.fail(wire.id_of_broken(line), error.code, f"line {number}: {error.message}"))
                return True
            if request is not None:
                failure = session.add(request)
                if failure is not None:
                    report.failure(failure)
                return True
        return False


def arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="a prompt a line, or JSON objects with any field of a submit message; - or none: standard input",
    )
    add_pictures(parser)
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Make the pictures."""
    with ExitStack() as stack:
        if args.file == "-":
            descriptor = sys.stdin.fileno()
        else:
            try:
                descriptor = os.open(args.file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ConfigError(f"{args.file}: {error.strerror}") from error
            stack.callback(os.close, descriptor)
        source = LineSource(Lines(descriptor), work.defaults(args))
        session = work.carry_out(args, source, patience_s=work.STREAM_PATIENCE_S, per_stage=True)
    return exit_status(session.failures, shared=False)
