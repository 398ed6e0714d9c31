"""The drawing while a command works, and one that draws nothing: for files, pipes and programs."""

import sys
from typing import Protocol, Self

from orchestrator.cli.session import Session
from stages.core import wire


class Display(Protocol):
    """A display, on the terminal, of how far a session has come."""

    def __enter__(self) -> Self:
        """Take the lower end of the terminal."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def show(self, session: Session, status: wire.Status | None, connected: bool, now: float) -> None:
        """Draw how things are, if it is time to."""

    def say(self, line: str) -> None:
        """Print a line on stdout that stays."""


class NoDisplay:
    """No drawing: lines only."""

    def __enter__(self) -> Self:
        """Do nothing: no part of the terminal is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: nothing was drawn."""

    def show(self, session: Session, status: wire.Status | None, connected: bool, now: float) -> None:
        """Draw nothing."""

    def say(self, line: str) -> None:
        """Print a line on stdout, at once."""
        print(line, flush=True)


def choose(json: bool, per_stage: bool) -> Display:
    """Drawings on a terminal, unless lines for programs were asked for."""
    if json or not sys.stderr.isatty():
        return NoDisplay()
    from orchestrator.cli.terminal.live import Live  # rich takes longer to import than all the rest

    return Live(per_stage)
