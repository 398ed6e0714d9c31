"""Measure every stage alone, one child process for each number of threads and streams; remember what was measured."""

import contextlib
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

import msgspec

from orchestrator.hub.child import environment
from orchestrator.plan import Plan, plan
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.simulate import Conditions
from orchestrator.tuning.space import MOST_ROWS, MOST_STREAMS, Candidate, Placement, doubling
from stages.core import cores, figures
from stages.core.config import Config
from stages.core.errors import ConfigError, StartFailed
from stages.core.model import ModelCard, ir
from stages.core.point import Point
from stages.core.route import STEPWISE
from stages.core.text_file import read_text_file
from stages.core.wire import Kind

_TICK_S = 0.2


class StageSetting(msgspec.Struct, frozen=True):
    """The setting of a stage that one child process measures."""

    kind: Kind
    threads: int
    streams: int
    rows: tuple[int, ...]


class Facts(msgspec.Struct, frozen=True):
    """The facts that measurements depend on."""

    cpu: str
    openvino: str
    model: str
    weights: tuple[tuple[str, int, int], ...]
    precision: str
    size: tuple[int, int]
    steps: int
    rows_of_a_job: int


class Profile(msgspec.Struct, frozen=True):
    """The measurements of a model on a machine; the file that `triptych plan` reads."""

    facts: Facts
    card: ModelCard
    cores: str
    points: tuple[Point, ...]
    conditions: Conditions
    """Conditions of the simulator, as the run that measured the points calibrated them."""

    def encode(self) -> bytes:
        """Encode the profile as JSON for a file."""
        return msgspec.json.format(msgspec.json.encode(self, enc_hook=str)) + b"\n"

    @classmethod
    def read(cls, path: Path) -> "Profile":
        """Read a profile from a file. Raises ConfigError."""
        try:
            return msgspec.json.decode(read_text_file(path), type=cls, dec_hook=lambda kind, value: kind(value))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; `triptych tune` writes such a file") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: no profile that `triptych tune` wrote: {error}") from error


def facts(config: Config, card: ModelCard) -> Facts:
    """The facts of this machine and this model."""
    planned_size = config.model.sizes[0].split("x") if config.model.sizes else card.native
    width, height = (int(side) for side in planned_size)
    return Facts(
        cpu=figures.cpu(),
        openvino=version("openvino"),
        model=card.name,
        weights=tuple(figures.weights(ir(card.path, part)) for part in card.parts),
        precision=config.model.precision,
        size=(width, height),
        steps=card.steps,
        rows_of_a_job=card.rows(card.guidance_scale),
    )


def stage_settings(topology: Topology, card: ModelCard) -> list[StageSetting]:
    """The settings to measure, most telling first: all threads in one stream and in several, then fewer threads."""
    granted = topology.granted
    per_job = card.rows(card.guidance_scale)
    rows = tuple(doubling(per_job, MOST_ROWS))
    ladder = sorted({granted, *doubling(1, granted), *(len(node) for node in topology.nodes)}, reverse=True)
    ladder = [threads for threads in ladder if threads <= granted]
    wanted = [StageSetting(STEPWISE, granted, streams, rows) for streams in doubling(1, min(granted, MOST_STREAMS))]
    wanted = [setting for setting in wanted if setting.threads % setting.streams == 0]
    for threads in ladder:
        wanted += [StageSetting("vae", threads, 1, (1,)), StageSetting("text", threads, 1, (1,))]
    wanted += [StageSetting(STEPWISE, threads, 1, rows) for threads in ladder if threads < granted]
    return wanted


def missing(wanted: Iterable[StageSetting], points: Iterable[Point]) -> list[StageSetting]:
    """The settings of `wanted` that have not been measured."""
    known = {(point.kind, point.threads, point.streams, point.rows) for point in points}
    left = []
    for setting in wanted:
        rows = tuple(r for r in setting.rows if (setting.kind, setting.threads, setting.streams, r) not in known)
        if rows:
            left.append(msgspec.structs.replace(setting, rows=rows))
    return left


class StageProfiler:
    """A stage that is loaded in a process of its own, to be measured as often as wanted."""

    def __init__(self, setting: StageSetting, child: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self._setting = setting
        self._child = child
        self._stderr = stderr
        self._unread = b""

    def measure(self, rows: int, until: float = math.inf, tick: Callable[[], None] = lambda: None) -> Point | None:
        """Measure a unit of work of `rows` rows; None, for good, if the monotonic clock says `until` before the answer.

        `tick` is called several times a second. Raises StartFailed for a stage that cannot be loaded.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; why is told below
            self._child.stdin.write(b"%d\n" % rows)
        while time.monotonic() < until:
            tick()
            if not select.select([self._child.stdout], [], [], _TICK_S)[0]:
                continue
            data = os.read(self._child.stdout.fileno(), 1 << 16)
            if not data:
                raise self._ended()
            self._unread += data
            line, end, rest = self._unread.partition(b"\n")
            if end:
                self._unread = rest
                return msgspec.json.decode(line, type=Point)
        return None

    def _ended(self) -> StartFailed:
        self._stderr.seek(0)
        why = self._stderr.read().decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        return StartFailed(
            f"{self._setting.kind} with {self._setting.threads} threads could not be measured: {why[-1]}"
        )


@contextmanager
def stage_profiler(
    setting: StageSetting, config: Config, card: ModelCard, topology: Topology
) -> Iterator[StageProfiler]:
    """Start a process that loads the stage; it ends with the context, or with us."""
    spec = next(spec for spec in _plan(setting, config, card, topology).stages if spec.kind == setting.kind)
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "stages.profile", msgspec.json.encode(spec).decode()],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # so that Ctrl-C is ours to handle
            env=environment(),
        ) as child,
    ):
        try:
            yield StageProfiler(setting, child, stderr)
        finally:
            child.kill()


def measure(
    setting: StageSetting, config: Config, card: ModelCard, topology: Topology, until: float, tick: Callable[[], None]
) -> Iterator[Point]:
    """Measure every number of rows twice, as far as the monotonic clock lets it until it says `until`.

    `tick` is called several times a second. Raises StartFailed for a stage that cannot be loaded.
    """
    with stage_profiler(setting, config, card, topology) as stage:
        # The second time backwards: what disturbs a virtual machine for a second must not hit a point both times.
        for rows in (*setting.rows, *reversed(setting.rows)):
            point = stage.measure(rows, until, tick)
            if point is None:
                return
            yield point


def _plan(setting: StageSetting, config: Config, card: ModelCard, topology: Topology) -> Plan:
    """The plan of a pipeline in which the stage is what it is to be measured as."""
    these = cores.render(topology.cores[: setting.threads])
    own = Placement(these, setting.threads, 1, setting.streams, max(2, *setting.rows))
    other = Placement(these, 1)
    placed: dict[Kind, Placement] = {"text": other, "unet": other, "vae": other, setting.kind: own}
    return plan(Candidate("timeslice", **placed).apply(config), card, topology.machine)


def fastest(points: Iterable[Point]) -> tuple[Point, ...]:
    """The quickest measurement of each kind of work."""
    found: dict[tuple[Kind, int, int, int], Point] = {}
    for point in points:
        which = (point.kind, point.threads, point.streams, point.rows)
        if which not in found or point.seconds < found[which].seconds:
            found[which] = point
    return tuple(found.values())


class ProfileStore:
    """The measurements, kept in the user's cache folder: a run that was broken off goes on where it was."""

    def __init__(self, known: Facts, store: figures.FigureStore | None = None) -> None:
        self._store = store or figures.FigureStore("profile")
        self._facts = known

    def points(self) -> tuple[Point, ...]:
        """Measurements that were remembered."""
        return self._store.read(self._facts, tuple[Point, ...]) or ()

    def add(self, point: Point) -> None:
        """Remember one more. Of several of the same kind the quickest is kept: others were disturbed."""
        self._store.write(self._facts, fastest((*self.points(), point)))
