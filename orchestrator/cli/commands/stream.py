"""`triptych stream`: prompts from a file or a pipe as they come, with a bar for each stage."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from orchestrator import standard_streams
from orchestrator.cli import parser as read
from orchestrator.cli import work
from orchestrator.cli.options import add_pictures, add_target, request
from orchestrator.cli.parser import Parser
from orchestrator.cli.prompts import Lines, parse
from orchestrator.cli.session import Session, exit_status
from orchestrator.cli.terminal.report import Report
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
                report.failure(
                    session.fail(wire.id_of_broken(line) or None, error.code, f"line {number}: {error.message}")
                )
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


@contextmanager
def _lines(file: str) -> Iterator[Lines]:
    """The lines of a file, or of standard input for `-`. Raises ConfigError for what is known not to have any."""
    if file == "-":
        if 0 in standard_streams.closed:
            raise ConfigError("standard input is closed; name a file of prompts, or pipe them in")
        yield Lines(sys.stdin.fileno(), "standard input")
        return
    path = read.path(file)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        if os.path.isdir(descriptor):
            raise ConfigError(f"{path}: a folder; name a file of prompts in it")
        yield Lines(descriptor, str(path))
    finally:
        os.close(descriptor)


def run(args: argparse.Namespace) -> int:
    """Make the pictures."""
    with ExitStack() as stack:
        source = LineSource(stack.enter_context(_lines(args.file)), request(args))
        session = work.carry_out(args, source, patience_s=work.STREAM_PATIENCE_S, per_stage=True)
    return exit_status(session.failures, shared=False)
