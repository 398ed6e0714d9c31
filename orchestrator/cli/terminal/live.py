"""The bars: what every image, or every stage, is doing now, at the lower end of the terminal (stderr)."""

import sys
from collections.abc import Iterator
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.cli.session import Place, PromptRun, Session
from orchestrator.cli.terminal.sanitize import sanitize
from orchestrator.cli.terminal.units import images
from stages.core import wire
from stages.core.route import STEPWISE

_REDRAW_S = 0.1
_MOST_ROWS = 8
"""Bars drawn at once; the other images are counted."""

_DOING_WIDTH = 11
_PROMPT_WIDTH = (12, 64)


class Live:
    """Draws at most ten times a second, when it is called: no thread, so nothing moves while the command hangs."""

    def __init__(self, per_stage: bool) -> None:
        self._per_stage = per_stage
        self._console = Console(stderr=True)
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._spinner = Spinner("dots", style="cyan")
        self._mark = Spinner("dots", style="cyan")
        self._drawn_at = 0.0
        self._last: dict[wire.Kind, str] = {}

    def __enter__(self) -> Self:
        """Take the lower end of the terminal."""
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe what was drawn."""
        self._live.__exit__(None, None, None)

    def show(self, session: Session, status: wire.Status | None, connected: bool, now: float) -> None:
        """Draw, unless that was done a moment ago."""
        if now - self._drawn_at < _REDRAW_S:
            return
        self._drawn_at = now
        self._live.update(Group(*self._lines(session, status, connected, now)), refresh=True)

    def say(self, line: str) -> None:
        """Print a line above the drawing; or where stdout goes, if that is not this terminal."""
        if sys.stdout.isatty():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def _lines(
        self, session: Session, status: wire.Status | None, connected: bool, now: float
    ) -> Iterator[RenderableType]:
        if session.began_at is None and (not connected or status is None or status.state == "starting"):
            return self._starting(status)
        return self._stages(session, now) if self._per_stage else self._images(session, now)

    def _starting(self, status: wire.Status | None) -> Iterator[RenderableType]:
        """While the stages load: a line for each."""
        yield self._spin("starting the pipeline" if status is None else f"loading {status.model}")
        for stage in status.stages if status else ():
            line = Text(f"  {stage.name:<8} ", style="bold")
            line.append(f"{stage.state:<10}", style="not bold" if _loading(stage.state) else "not bold green")
            line.append(f" cores {stage.cores_seen or stage.cores_asked}", style="not bold dim")
            yield line

    def _images(self, session: Session, now: float) -> Iterator[RenderableType]:
        """A bar for each image that is in some stage."""
        table = self._table()
        rows = [(job, index, place) for job in session.jobs() for index, place in sorted(job.places.items())]
        for job, index, place in rows[:_MOST_ROWS]:
            prompt = sanitize(job.request.prompt)
            name = prompt if job.request.n == 1 else f"{index + 1}/{job.request.n} {prompt}"
            table.add_row(Text(name), self._bar(1.0, _share(place), now), _doing(place))
        if rows:
            yield table
        if session.images_asked > 1 or not rows:
            yield self._spin(_overall(session, now))

    def _stages(self, session: Session, now: float) -> Iterator[RenderableType]:
        """A line for each kind of stage, with the prompt it has."""
        table = self._table(names=True)
        for kind in wire.KINDS:
            name = Text(kind, style="bold")
            if held := _held(session, kind):
                job, place = held
                self._last[kind] = sanitize(job.request.prompt)
                # The progress within a text encoding or a decoding is not reported.
                bar = self._bar(place.steps, place.step, now, pulse=kind == "vae") if kind != "text" else ""
                table.add_row(name, Text(self._last[kind]), bar, _doing(place) if kind == STEPWISE else "")
            else:  # what was here last stays, dimly: stages that need milliseconds would only flicker
                table.add_row(name, Text(self._last.get(kind, ""), style="dim"), "", "")
        whole = self._bar(session.images_asked, session.images_done, now) if session.all_asked else ""
        table.add_row(self._mark, _overall(session, now), whole, "")
        yield table

    def _table(self, names: bool = False) -> Table:
        """Columns that stay where they are, however long the prompts."""
        width = self._console.width
        bar = self._bar_width()
        fixed = bar + _DOING_WIDTH + 2 + (6 if names else 0)
        table = Table.grid(padding=(0, 1))
        if names:
            table.add_column(width=5)
        low, high = _PROMPT_WIDTH
        table.add_column(width=min(max(low, width - fixed - 2), high), no_wrap=True, overflow="ellipsis")
        table.add_column(width=bar)
        table.add_column(width=_DOING_WIDTH, no_wrap=True)
        return table

    def _bar(self, total: float, done: float, now: float, pulse: bool = False) -> ProgressBar:
        return ProgressBar(total, done, width=self._bar_width(), pulse=pulse, animation_time=now)

    def _bar_width(self) -> int:
        return 30 if self._console.width >= 80 else 12

    def _spin(self, words: str) -> Spinner:
        self._spinner.update(text=Text(words))
        return self._spinner


def _overall(session: Session, now: float) -> str:
    done = f"{session.images_done} of " if session.all_asked else ""
    words = [f"{done}{images(session.images_asked if session.all_asked else session.images_done)}"]
    if session.images_done and session.began_at is not None:
        words.append(f"{session.images_done / max(now - session.began_at, 1e-3):.2f} images/s")
    if session.idle_images:
        words.append(f"{session.idle_images} waiting")
    if session.failures:
        words.append(f"{len(session.failures)} failed")
    return ", ".join(words)


def _loading(state: str) -> bool:
    return state in ("starting", "loading", "backoff", "compiling")


def _held(session: Session, kind: wire.Kind) -> tuple[PromptRun, Place] | None:
    """The image that a kind of stage works on: of those there, the U-Net's first, the other stages' last."""
    found = [
        (job, place)
        for job in session.sent.values()
        for place in job.places.values()
        if place.stage == kind and (kind != STEPWISE or place.step < place.steps)
    ]
    pick = min if kind == STEPWISE else max
    return pick(found, key=lambda held: held[1].since, default=None)


def _share(place: Place) -> float:
    """Share of an image that is done, 0 to 1, near enough for a bar: nearly all of the work is in the steps."""
    match place.stage:
        case "text":
            return 0.0
        case "unet":
            return 0.02 + 0.9 * place.step / max(place.steps, 1)
        case "vae":
            return 0.92


def _doing(place: Place) -> Text:
    return Text(f"unet {place.step}/{place.steps}" if place.stage == STEPWISE else place.stage, style="dim")
