"""`triptych generate`: the prompts of the command line, with a bar for each picture."""

import argparse
from collections import deque

import msgspec

from orchestrator.cli import parser as read
from orchestrator.cli import work
from orchestrator.cli.options import add_pictures, add_target, request
from orchestrator.cli.parser import Parser
from orchestrator.cli.prompts import new_id
from orchestrator.cli.session import Session, exit_status
from orchestrator.cli.terminal.report import Report
from stages.core import wire


class Prompts:
    """Prompts that are all known from the start."""

    def __init__(self, prompts: list[str], defaults: wire.Submit) -> None:
        self._left = deque(prompts)
        self._defaults = defaults

    @property
    def ended(self) -> bool:
        """Whether all have been read."""
        return not self._left

    def read(self, session: Session, report: Report, wait_s: float) -> bool:
        """Ask for the next one."""
        session.add(msgspec.structs.replace(self._defaults, id=new_id(), prompt=self._left.popleft()))
        return True


def arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.add_argument("prompt", nargs="+", type=read.text, metavar="PROMPT", help="what to draw")
    add_pictures(parser)
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Make the pictures."""
    session = work.carry_out(args, Prompts(args.prompt, request(args)), patience_s=0.0, per_stage=False)
    return exit_status(session.failures, shared=True)
