"""Predicted scores of candidates: which of them cannot be, which cannot be good, and what the others would do. Pure."""

import math
from collections.abc import Callable, Iterable

from orchestrator.plan import Plan, plan
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.load import jobs_for, load
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.score import Score, fill, steady
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated, simulate
from orchestrator.tuning.space import Candidate, Placement
from stages.core import cores
from stages.core.config import Config
from stages.core.errors import ConfigError
from stages.core.model import ModelCard
from stages.core.route import STEPWISE
from stages.core.wire import KINDS, Kind

_IMAGES = 24
"""Images that count in a simulated load, at least."""

_MEMORY_SHARE = 0.9
"""Share of the available memory that may be planned with."""


class Predictor:
    """Predicts scores, bounds and memory of any candidate from the curves of single stages."""

    def __init__(
        self,
        config: Config,
        card: ModelCard,
        topology: Topology,
        curves: Curves,
        conditions: Conditions = UNMEASURED,
        steps: int | None = None,
    ) -> None:
        self.config = config
        self.card = card
        self.topology = topology
        self.curves = curves
        self.conditions = conditions
        self.steps = steps or card.steps

    def plan(self, candidate: Candidate) -> Plan:
        """The real plan of the candidate."""
        return plan(candidate.apply(self.config), self.card, self.topology.machine)

    def play(self, candidate: Candidate, jobs: int | None = None, in_flight: int | None = None) -> Simulated:
        """Simulate the candidate under the load of a trial."""
        planned = self.plan(candidate)
        out = in_flight or fill(planned)
        arrivals = load(jobs or jobs_for(out, _IMAGES, 1.0), self.steps)
        return simulate(planned, self.topology.machine, self.curves, arrivals, out, self.conditions)

    def score(self, candidate: Candidate) -> Score:
        """The score of the candidate: the steady part of `play`."""
        return steady(self.play(candidate).played.records, fill(self.plan(candidate)))

    def bound(self, candidate: Candidate) -> float:
        """Images a second that the candidate cannot exceed: no stage is faster than alone, no core works twice."""
        rates: list[float] = []
        core_s = dict.fromkeys((candidate.of(kind).cores for kind in KINDS), 0.0)
        for kind in KINDS:
            placed = candidate.of(kind)
            # Forwards may hold fewer rows than they might, and be the better for it.
            seconds, used = zip(*(self._an_image(kind, placed, jobs) for jobs in self._jobs(kind, placed)), strict=True)
            rates.append(placed.replicas * placed.streams / min(seconds))
            core_s[placed.cores] += min(used)
        rates += [len(cores.parse(where)) / spent for where, spent in core_s.items() if spent]
        rates.append(self.topology.machine.quota / sum(core_s.values()))
        return min(rates)

    def _jobs(self, kind: Kind, placed: Placement) -> Iterable[int]:
        """The numbers of images that a unit of work may be about."""
        if kind != STEPWISE:
            return (1,)
        return range(1, placed.max_rows // self.card.rows(self.card.guidance_scale) + 1)

    def _an_image(self, kind: Kind, placed: Placement, jobs: int) -> tuple[float, float]:
        """Seconds of one stream, and core seconds, for one of `jobs` images that are worked on together."""
        rows = jobs * self.card.rows(self.card.guidance_scale) if kind == STEPWISE else 1
        cost = self.curves.cost(kind, placed.threads, placed.streams, rows)
        seconds = cost.seconds * (self.steps if kind == STEPWISE else 1) / jobs
        return seconds, seconds * cost.cores

    def memory_bytes(self, candidate: Candidate) -> int:
        """Bytes of all stage processes together, from their measurements: one compilation a number of rows."""
        per_job = self.card.rows(self.card.guidance_scale)
        total = 0
        for kind in KINDS:
            points = [point for point in self.curves.points if point.kind == kind]
            placed = candidate.of(kind)
            least = min(point.rss_bytes for point in points)
            if kind == STEPWISE:
                numbers = len({point.rows for point in points})
                a_compilation = (max(point.rss_bytes for point in points) - least) / max(1, numbers - 1)
                least += round(a_compilation * (placed.max_rows // per_job - 1))
            total += placed.replicas * least
        return total

    def fits(self, candidate: Candidate) -> bool:
        """Whether it can be planned at all, and has room."""
        try:
            planned = self.plan(candidate)
        except ConfigError:
            return False
        room = _MEMORY_SHARE * self.topology.machine.memory_available
        return self.memory_bytes(candidate) + planned.arena_bytes <= room

    def by_bound(self, candidates: Iterable[Candidate], most: int) -> list[Candidate]:
        """The `most` with the highest bounds of those that fit."""
        fit = [candidate for candidate in candidates if self.fits(candidate)]
        return sorted(fit, key=lambda candidate: -self.bound(candidate))[:most]

    def scores(
        self, candidates: Iterable[Candidate], tick: Callable[[], None] = lambda: None
    ) -> dict[Candidate, Score]:
        """Predicted scores of the candidates; `tick` is called after each."""
        found = {}
        for candidate in candidates:
            found[candidate] = self.score(candidate)
            tick()
        return found


def best_predicted(scores: dict[Candidate, Score], cap_s: float = math.inf) -> Candidate | None:
    """The fastest of those that keep the cap."""
    fit = [candidate for candidate, score in scores.items() if score.p99_s <= cap_s]
    return max(fit, key=lambda candidate: scores[candidate].images_per_s, default=None)
