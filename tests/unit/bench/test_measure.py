"""What `bench` plays where it is not told how much: as much as the stages hold."""

import pytest

from orchestrator.bench.measure import capacity, with_concurrency
from orchestrator.bench.workload import ArrivalProcess, Closed, Poisson
from orchestrator.plan import Plan, plan
from orchestrator.tuning.score import fill
from stages.core import config, wire
from stages.core.model import ModelCard
from tests.unit.cards import CARD, DISTILLED, machine
from tests.unit.statuses import stage, status


def told(planned: Plan) -> wire.Status:
    """What a hub says of stages so planned, as far as it is asked for here."""
    return status(stages=tuple(stage(spec.name, kind=spec.kind, depth=spec.depth) for spec in planned.stages))


def planned(card: ModelCard, *overrides: str) -> Plan:
    return plan(config.load(None, overrides, environ={}), card, machine(4))


@pytest.mark.parametrize(
    ("card", "overrides", "expected"),
    [
        (CARD, (), 2 + 2 + 2),
        (CARD, ("stage.unet.streams=2", "stage.unet.max_rows=3"), 2 + 3 + 2),
        (CARD, ("stage.unet.replicas=2", "stage.unet.max_rows=8", "stage.vae.replicas=2"), 2 + 5 + 5 + 2 + 2),
        (DISTILLED, ("stage.unet.max_rows=8",), 2 + 9 + 2),
    ],
)
def test_a_closed_loop_has_as_many_prompts_out_as_the_stages_may_hold(
    card: ModelCard, overrides: tuple[str, ...], expected: int
) -> None:
    found = planned(card, *overrides)
    assert capacity(told(found)) == expected == sum(found.depths[spec.kind] for spec in found.stages)
    assert with_concurrency(Closed(), told(found)) == Closed(expected)
    assert fill(found) == sum(spec.depth - 1 for spec in found.stages if spec.kind == "unet") + 2 <= expected


@pytest.mark.parametrize("how", [Closed(3), Poisson(0.5)])
def test_arrivals_that_say_how_many_are_played_as_they_are(how: ArrivalProcess) -> None:
    assert with_concurrency(how, told(planned(CARD))) == how


def test_a_server_that_says_no_depth_holds_what_every_stage_holds_at_least() -> None:
    plain = wire.decode_hub_message(wire.encode(status(stages=(stage("text-0"),))).replace(b'"depth":2,', b""))
    assert isinstance(plain, wire.Status)
    assert capacity(plain) == 2
