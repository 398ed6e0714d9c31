"""The results, as a file and as a table; files of several runs of one task can be put together."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.comparison.memory import Peak
from benchmarks.comparison.ratios import Ratio, ratio

OURS = "triptych"
"""Beginning of the names of Triptych's systems."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The task of each system in every run."""

    model: str
    images: int
    steps: int
    guidance_scale: float
    width: int
    height: int
    precision: str
    alone: bool
    """One prompt at a time, the next when its picture has come; otherwise all are handed over at once."""

    def figure(self, seconds: Sequence[float]) -> float:
        """The figure compared, of one system in one round: images a second; alone, the median seconds of an image."""
        return median(seconds) if self.alone else self.images * len(seconds) / sum(seconds)

    @property
    def unit(self) -> str:
        """Unit of `figure`."""
        return "s for one" if self.alone else "images/s"

    def __str__(self) -> str:
        """A line for people."""
        how = "one at a time" if self.alone else "at once"
        return (
            f"{self.model}: {self.images} images {how}, {self.width}x{self.height}, {self.steps} steps, "
            f"guidance {self.guidance_scale:g}, {self.precision}"
        )


class Measured(msgspec.Struct, kw_only=True):
    """The measurements of one task, by system."""

    task: Task
    rounds: list[dict[str, list[float]]] = []
    """Seconds of each run (alone: of each image), by system, for each round."""
    peaks: dict[str, Peak] = {}
    likeness: dict[str, float | None] = {}
    """PSNR in dB of its picture against Triptych's; None where they are equal."""
    idle_share: dict[str, float] = {}
    """The most CPU time, in cores, that it used while another one worked."""

    def figures(self, name: str, beside: str) -> list[float]:
        """The system's figure in every round that it shares with another."""
        return [self.task.figure(seconds[name]) for seconds in self.rounds if name in seconds and beside in seconds]

    def names(self) -> list[str]:
        """All systems, peers first."""
        found = dict.fromkeys(name for seconds in self.rounds for name in seconds) | dict.fromkeys(self.peaks)
        return sorted(found, key=lambda name: name.startswith(OURS))

    def ratio(self, name: str, peer: str) -> Ratio | None:
        """Ratio of our figure to the peer's; None where they were never in one round."""
        ours, theirs = self.figures(name, peer), self.figures(peer, name)
        return ratio(ours, theirs) if ours else None


class Report(msgspec.Struct, kw_only=True):
    """One run of the benchmark, or several."""

    machine: str
    versions: dict[str, str]
    measured: list[Measured]


def read(files: Iterable[Path]) -> Report:
    """Several files as one: rounds of equal tasks are put together.

    Raises ValueError for other files, and for files of different machines; OSError where one cannot be read.
    """
    reports = [_read(file) for file in files]
    first = reports[0]
    by_task: dict[Task, Measured] = {}
    for report in reports:
        if (report.machine, report.versions) != (first.machine, first.versions):
            raise ValueError("the files are of different machines or versions; make a table of each")
        for found in report.measured:
            known = by_task.setdefault(found.task, Measured(task=found.task))
            known.rounds += found.rounds
            known.peaks |= found.peaks
            known.likeness |= found.likeness
            known.idle_share |= found.idle_share
    return Report(machine=first.machine, versions=first.versions, measured=list(by_task.values()))


def _read(file: Path) -> Report:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: not written by --json: {error}") from error


def table(found: Measured) -> list[str]:
    """The table, in Markdown: one row a system, one column of ratios for each Triptych."""
    ours = [name for name in found.names() if name.startswith(OURS)]
    head = ["", found.task.unit, *(f"{name} / it" for name in ours), "peak PSS", "picture"]
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for name in found.names():
        figures = found.figures(name, name)
        rows.append(
            [
                name,
                f"{median(figures):.3g}" if figures else "",
                *("" if name in ours else str(found.ratio(one, name) or "") for one in ours),
                f"{found.peaks[name].pss / 1e9:.2f} GB" if name in found.peaks else "",
                _likeness(found, name),
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _likeness(found: Measured, name: str) -> str:
    if name not in found.likeness:
        return ""
    decibels = found.likeness[name]
    return "equal" if decibels is None else f"{decibels:.0f} dB"
