"""The loop of `generate` and `stream`, from prompts to files."""

import argparse
import time
from typing import Protocol, assert_never

from orchestrator import output
from orchestrator.cli import options
from orchestrator.cli.connection import connect
from orchestrator.cli.session import WINDOW, Failure, Outcome, Picture, Session, StampsArrived
from orchestrator.cli.terminal import display
from orchestrator.cli.terminal.display import Display
from orchestrator.cli.terminal.pictures import Folder
from orchestrator.cli.terminal.report import JsonReport, PlainReport, Report
from orchestrator.client import Client
from orchestrator.trace import prompts as trace

_TICK_S = 0.1
"""Seconds that the loop may wait for one thing while another could happen."""

_HOPELESS_S = 5.0
"""Seconds after which a prompt that a pipeline of our own, with nothing else in it, refuses will never fit."""

STREAM_PATIENCE_S = 900.0
"""Seconds that others may fill a shared pipeline before the prompts of a stream fail."""


class Source(Protocol):
    """A source of prompts: the command line, a file or a pipe."""

    @property
    def ended(self) -> bool:
        """Whether all have been read."""

    def read(self, session: Session, report: Report, wait_s: float) -> bool:
        """Ask the session for the next prompt, or report why it is none; False if none comes in `wait_s` seconds."""


class CommandRun:
    """One command: its prompts, their pictures, and what is said about them."""

    def __init__(self, session: Session, source: Source, folder: Folder, report: Report, screen: Display) -> None:
        self.traced: list[trace.Entry] = []
        self._session = session
        self._source = source
        self._folder = folder
        self._report = report
        self._screen = screen

    def run(self, client: Client) -> None:
        """Run until the source and every prompt have ended. Ctrl-C gives up the prompts that are with the server."""
        began = time.monotonic()
        try:
            while not (self._source.ended and self._session.finished):
                self._turn(client)
        except KeyboardInterrupt:
            client.cancel(*self._session.sent)
            raise
        now = time.monotonic()
        started = self._session.began_at or now
        self._report.summary(self._session, now - started, started - began, self._folder.path)

    def _turn(self, client: Client) -> None:
        session = self._session
        # 1. Read, as far as there is room; wait for a line only when there is nothing else to wait for.
        for _ in range(WINDOW):
            if self._source.ended or not session.room:
                break
            wait_s = _TICK_S if session.finished and client.connected else 0.0
            if not self._source.read(session, self._report, wait_s):
                break
        session.all_asked = self._source.ended
        # 2. Send what is due.
        if client.connected:
            for request in session.due(time.monotonic()):
                client.send(request)
        # 3. Take one message in.
        event = client.receive(0.0 if session.finished else _TICK_S)
        now = time.monotonic()
        if event is not None:
            self._tell(session.on_event(*event, now))
        # 4. Draw.
        self._screen.show(session, client.last_status, client.connected, now)

    def _tell(self, outcome: Outcome | None) -> None:
        match outcome:
            case None:
                return
            case Picture(job, image, encoded):
                path = self._folder.write(job.number + image.index, job.request.prompt, image, encoded)
                self._report.picture(outcome, path)
            case Failure():
                self._report.failure(outcome)
            case StampsArrived(job, traced):
                self.traced.append(trace.Entry(job.request.prompt, job.request.id, traced))
            case _:
                assert_never(outcome)


def carry_out(args: argparse.Namespace, source: Source, patience_s: float, per_stage: bool) -> Session:
    """Make the pictures that `args` and `source` ask for, and say so; returns what has become of them.

    A shared pipeline that has no room for anything of ours is asked again for `patience_s` seconds.
    """
    where = options.target(args)
    folder = Folder(options.out(args))
    folder.open()
    if args.trace:
        output.check(args.trace, "the trace")
    session = Session(patience_s if isinstance(where, options.Remote) else _HOPELESS_S)
    screen = display.choose(args.json, per_stage)
    report: Report = JsonReport(screen.say) if args.json else PlainReport(screen.say)
    work = CommandRun(session, source, folder, report, screen)
    try:
        with connect(where, args.debug) as client, screen:
            work.run(client)
    finally:
        if args.trace and work.traced:  # also what there is after Ctrl-C
            trace.write(args.trace, work.traced)
    return session
