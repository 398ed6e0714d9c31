"""`triptych tune` without its terminal: profile, calibrate, predict, search; what is known is not measured again."""

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from orchestrator.plan import Plan, plan
from orchestrator.tuning import profile, space, trial
from orchestrator.tuning.calibrate import calibrate
from orchestrator.tuning.curves import Curves
from orchestrator.tuning.load import jobs_for
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.predictor import Predictor, best_predicted
from orchestrator.tuning.score import Score, fill
from orchestrator.tuning.search import SearchResult, search
from orchestrator.tuning.simulate import UNMEASURED, Conditions, Simulated
from orchestrator.tuning.space import Candidate
from orchestrator.tuning.trial import Trial, TrialStore
from stages.core import cores
from stages.core.config import Config
from stages.core.model import ModelCard
from stages.core.point import Point
from stages.core.route import STEPWISE
from stages.core.wire import KINDS, Kind

_PROFILE_SHARE = 0.4
"""Share of the budget that may go to stages alone; what was not measured by then is predicted by the law."""

_MOST_SIMULATED = 80
_MOST_SIMULATED = 5
"""Configurations that are simulated for each other number of cores."""

_STEADY_SHARE = 0.5
"""Share of the time for a trial that goes to the steady part of its load; the rest is starting and warming up."""

_STEADY_S = (3.0, 30.0)
"""Seconds of the steady part, at least and at most, where images are quick."""

_START_S = 5.0
_WARM_SHARE = 0.4
"""Images that take as long as warming up, for each prompt in flight."""


class TuningTask(NamedTuple):
    """The configuration to tune, and the bounds within which."""

    path: Path | None
    overrides: tuple[str, ...]
    config: Config
    card: ModelCard
    topology: Topology
    steps: int
    """Steps of the prompts it is tuned for."""
    cap_s: float
    budget_s: float
    trials: int


class TunerDisplay(Protocol):
    """The display of the tuner's progress."""

    def phase(self, title: str, total: int) -> None:
        """A phase of `total` parts begins."""

    def doing(self, what: str) -> None:
        """The next part of the phase begins."""

    def done(self, line: str = "") -> None:
        """The part is done; `line` is worth keeping."""

    def tick(self) -> None:
        """Note that time has passed; called several times a second."""


class TuningOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of tuning."""

    cap_s: float
    before: Candidate
    """Configuration as it came, as a candidate."""
    best: Candidate | None
    """Best candidate; None if nothing that was run keeps the cap."""
    trials: tuple[Trial, ...]
    predicted: tuple[tuple[Candidate, Score], ...]
    conditions: Conditions
    complete: bool
    """Whether the search ended by itself, rather than for want of time or trials."""
    simulated: int
    left_out: int
    """Number of candidates that cannot be planned or have no room in memory."""
    more_cores: tuple[tuple[int, float], ...]
    """Pairs of a number of cores and the images a second, simulated, of the best candidate on them."""


class Tuner:
    """One run of the tuner."""

    def __init__(self, task: TuningTask, show: TunerDisplay, clock: Callable[[], float] = time.monotonic) -> None:
        self._task = task
        self._show = show
        self._clock = clock
        self._end = clock() + task.budget_s
        self.facts = profile.facts(task.config, task.card)
        self._memory = profile.ProfileStore(self.facts)
        pipeline = task.config.pipeline
        where = (task.topology.nodes, task.topology.machine.quota)
        here = (self.facts, version("triptych"), where, pipeline.order, task.config.model, task.steps)
        self._log = TrialStore(here)

    def run(self) -> TuningOutcome:
        """Tune. What is measured is remembered at once, so it may be broken off at any time."""
        task = self._task
        curves = self._profile()
        before = configured_candidate(task.config, task.card, task.topology)
        conditions = self._calibrate(curves, before)
        predictor = Predictor(task.config, task.card, task.topology, curves, conditions, task.steps)
        every = space.candidates(task.topology, task.card)
        fit = [candidate for candidate in every if predictor.fits(candidate)]
        chosen = list(dict.fromkeys([before, *predictor.by_bound(fit, _MOST_SIMULATED)]))
        self._show.phase("simulating", len(chosen))
        self._show.doing(f"{len(chosen)} configurations simulated")
        predicted = predictor.scores(chosen, self._show.done)
        found = self._search(predictor, predicted)
        best = found.best
        return TuningOutcome(
            cap_s=task.cap_s,
            before=before,
            best=best,
            trials=self._known(set(found.scores)),
            predicted=tuple(predicted.items()),
            conditions=conditions,
            complete=found.complete,
            simulated=len(chosen),
            left_out=len(every) - len(fit),
            more_cores=self._more_cores(curves, conditions) if best is not None else (),
        )

    def profile(self, conditions: Conditions) -> profile.Profile:
        """The measurements of stages alone, and the conditions of the simulator."""
        task = self._task
        used = cores.render(task.topology.cores)
        return profile.Profile(self.facts, task.card, used, self._memory.points(), conditions)

    def _profile(self) -> Curves:
        task = self._task
        wanted = profile.stage_settings(task.topology, task.card)
        left = profile.missing(wanted, self._memory.points())
        self._show.phase("measuring stages", sum(len(setting.rows) for setting in wanted))
        for _ in range(sum(len(setting.rows) for setting in wanted) - sum(len(setting.rows) for setting in left)):
            self._show.done()
        until = self._clock() + _PROFILE_SHARE * task.budget_s
        seen: set[Kind] = {point.kind for point in self._memory.points()}
        for setting in left:
            # Without one point of each kind nothing can be told, so that much is measured whatever it takes.
            deadline = until if setting.kind in seen else float("inf")
            self._show.doing(_describe_setting(setting))
            rows: set[int] = set()
            for point in profile.measure(setting, task.config, task.card, task.topology, deadline, self._show.tick):
                again = point.rows in rows
                rows.add(point.rows)
                self._memory.add(point)
                seen.add(setting.kind)
                if not again:
                    self._show.done(f"{_describe_setting(setting)}: {describe_point(point)}")
                if self._clock() > until or not _room(point, task.topology.machine.memory_available):
                    break
        return Curves(self._memory.points())

    def _calibrate(self, curves: Curves, before: Candidate) -> Conditions:
        """Run the configuration as it came, and the usual way to share, to learn what competing for cores costs."""
        task = self._task
        predictor = Predictor(task.config, task.card, task.topology, curves, steps=task.steps)
        usual = [c for c in space.candidates(task.topology, task.card) if c.share == "timeslice"][:1]
        first = [before] if before.share == "timeslice" else [before, *usual]
        self._show.phase("first runs", len(first))
        for candidate in first:
            if not self._known({candidate}):
                self._try(predictor, candidate, predictor.bound(candidate))
            else:
                self._show.done()

        def predict(ran: Trial, conditions: Conditions) -> Simulated:
            at = Predictor(task.config, task.card, task.topology, curves, conditions, task.steps)
            return at.play(ran.candidate, ran.jobs, ran.in_flight)

        return calibrate(self._known(set(first)), predict, UNMEASURED)

    def _search(self, predictor: Predictor, predicted: dict[Candidate, Score]) -> SearchResult:
        task = self._task
        known = {ran.candidate: [r.score for r in self._known({ran.candidate})] for ran in self._known(set(predicted))}
        self._show.phase("trying", task.trials)
        for scores in known.values():
            for _ in scores:
                self._show.done()

        def attempt(candidate: Candidate) -> Score | None:
            rate = predicted[candidate].images_per_s
            jobs = self._jobs(predictor, candidate, rate)
            out = fill(predictor.plan(candidate))
            if self._clock() + _START_S + (jobs + _WARM_SHARE * out) / rate > self._end:
                return None
            return self._try(predictor, candidate, rate)

        return search(predicted, attempt, task.cap_s, task.trials, known)

    def _try(self, predictor: Predictor, candidate: Candidate, rate: float) -> Score:
        task = self._task
        best = self._best_so_far()
        self._show.doing(candidate.name + (f" (best so far {best:.3g} images/s)" if best else ""))
        out = fill(predictor.plan(candidate))
        jobs = self._jobs(predictor, candidate, rate)
        ran = trial.run(task.path, list(task.overrides), candidate, out, jobs, task.steps, self._show.tick)
        self._log.add(ran)
        remark = ", over the cap" if ran.score.p99_s > task.cap_s else ""
        if not remark and ran.score.images_per_s > best:
            remark = f", best so far, limited by {ran.bottleneck.limits}"
        told = f"{ran.score.images_per_s:.3g} images/s, p99 {ran.score.p99_s:.3g} s"
        self._show.done(f"{candidate.name}: {told}{remark}")
        return ran.score

    def _best_so_far(self) -> float:
        """Images a second of the fastest run that kept the cap; 0 before the first."""
        fit = (ran.score for ran in self._log.read() if ran.score.p99_s <= self._task.cap_s)
        return max((score.images_per_s for score in fit), default=0.0)

    def _jobs(self, predictor: Predictor, candidate: Candidate, rate: float) -> int:
        left = max(0.0, self._end - self._clock())
        share = left / max(1, self._task.trials - len(self._log.read())) * _STEADY_SHARE
        return jobs_for(fill(predictor.plan(candidate)), rate, min(max(share, _STEADY_S[0]), _STEADY_S[1]))

    def _known(self, these: set[Candidate]) -> tuple[Trial, ...]:
        return tuple(ran for ran in self._log.read() if ran.candidate in these)

    def _more_cores(self, curves: Curves, conditions: Conditions) -> tuple[tuple[int, float], ...]:
        """The best by simulation with one core fewer, as many, one more, twice as many, by the law."""
        task = self._task
        here = len(task.topology.cores)
        by_law = Curves(curves.points, by_law=True)
        numbers = sorted({max(1, here - 1), here, here + 1, 2 * here})
        self._show.phase("looking ahead", len(numbers))
        found = []
        for number in numbers:
            self._show.doing(f"{number} cores simulated")
            topology = Topology.what_if(number, 1)
            predictor = Predictor(task.config, task.card, topology, by_law, conditions, task.steps)
            scores = predictor.scores(predictor.by_bound(space.candidates(topology, task.card), _MOST_SIMULATED))
            best = best_predicted(scores, task.cap_s) or best_predicted(scores)
            if best is not None:
                found.append((number, scores[best].images_per_s))
            self._show.done()
        return tuple(found)


def configured_candidate(config: Config, card: ModelCard, topology: Topology) -> Candidate:
    """The configuration as a candidate: what it leaves open is as it is planned. Raises ConfigError."""
    planned: Plan = plan(config, card, topology.machine)
    threads: dict[Kind, int] = {}
    where: dict[Kind, str] = {}
    for kind in KINDS:
        specs = [spec for spec in planned.stages if spec.kind == kind]
        threads[kind] = specs[0].threads
        where[kind] = cores.render(frozenset().union(*(cores.parse(spec.cores) for spec in specs)))
    return space.of_config(config, planned.share, threads, where)


def _room(point: Point, available: int) -> bool:
    """Whether one more number of rows can be compiled: it may take as much as all before it together."""
    return 2 * point.rss_bytes < available


def _describe_setting(setting: profile.StageSetting) -> str:
    threads = f"{setting.threads} thread{'' if setting.threads == 1 else 's'}"
    return f"{setting.kind}, {threads}" + (f" in {setting.streams} streams" if setting.streams > 1 else "")


def describe_point(point: Point) -> str:
    """A point as text for people."""
    rows = f"{point.rows} rows " if point.kind == STEPWISE else ""
    return f"{rows}{point.seconds * 1000:.3g} ms"
