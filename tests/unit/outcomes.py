"""A tuning that never ran: outcomes for reports and pictures."""

from functools import cache

from orchestrator.tuning.curves import Curves
from orchestrator.tuning.machine import Topology
from orchestrator.tuning.predictor import Predictor
from orchestrator.tuning.profile import Facts, Profile
from orchestrator.tuning.score import Score, fill
from orchestrator.tuning.simulate import Conditions
from orchestrator.tuning.space import Candidate, candidates
from orchestrator.tuning.trial import Trial
from orchestrator.tuning.tuner import TuningOutcome, configured_candidate
from stages.core.config import Config
from stages.core.wire import Bottleneck
from tests.unit.cards import CARD
from tests.unit.points import points

TOPOLOGY = Topology.what_if(2, 1)
CONDITIONS = Conditions(0.0004, 0.0001, 0.05)
PROFILE = Profile(
    Facts("cpu", "2026.4", "paper", (("/models/paper", 1, 2),), "auto", (64, 64), 3, 2),
    CARD,
    "0-1",
    points(),
    CONDITIONS,
)
PREDICTOR = Predictor(Config(), CARD, TOPOLOGY, Curves(points()), CONDITIONS, steps=10)


def trial(candidate: Candidate, score: Score, used: float = 0.97) -> Trial:
    """A run in which this share of two cores was in use."""
    return Trial(
        candidate=candidate,
        score=score,
        in_flight=fill(PREDICTOR.plan(candidate)),
        jobs=20,
        steps=10,
        seconds=4.0,
        cores_used={
            "unet-0": 1.5 * used,
            "vae-0": 0.3 * used,
            "text-0": 0.1 * used,
            "hub": 0.06 * used,
            "load": 0.04 * used,
        },
        messages=400,
        pss_bytes=1 << 30,
        bottleneck=Bottleneck(limits="cores 0-1", why=f"{used:.0%} of cores 0-1 are in use", change="more cores"),
    )


@cache
def outcome(cap_s: float = 1.0, complete: bool = True) -> TuningOutcome:
    """Of some candidates that ran exactly as simulated, the best one twice."""
    before = configured_candidate(Config(), CARD, TOPOLOGY)
    some = list(dict.fromkeys([before, *candidates(TOPOLOGY, CARD)[::4]]))
    predicted = PREDICTOR.scores(some)
    trials = [trial(each, predicted[each]) for each in some]
    fit = [each for each in some if predicted[each].p99_s <= cap_s]
    best = max(fit, key=lambda each: predicted[each].images_per_s, default=None)
    if best is not None:
        trials.append(trial(best, predicted[best]))
    return TuningOutcome(
        cap_s=cap_s,
        before=before,
        best=best,
        trials=tuple(trials),
        predicted=tuple(predicted.items()),
        conditions=CONDITIONS,
        complete=complete,
        simulated=len(some),
        left_out=0,
        more_cores=((1, 4.0), (2, 8.0), (3, 11.0), (4, 14.0)),
    )
