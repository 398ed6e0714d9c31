"""Costs are found again by the same plan, and by no other."""

from pathlib import Path

import msgspec
import pytest

from orchestrator.plan import plan
from orchestrator.routing.cost_store import CostBook
from stages.core.config import Config, StageConfig
from stages.core.costs import Cost
from stages.core.figures import FigureStore
from stages.core.model import demo_folder, read_card
from tests.unit.cards import machine

COSTS = (Cost("encode_text", 0, 0.01), Cost("denoise", 16384, 0.005), Cost("decode", 16384, 0.012))
CARD = read_card(demo_folder())


@pytest.fixture
def store(tmp_path: Path) -> FigureStore:
    return FigureStore("costs", tmp_path)


def book(store: FigureStore, config: Config | None = None) -> CostBook:
    return CostBook(plan(config or Config(), CARD, machine(4)), store)


def test_the_same_plan_finds_them(store: FigureStore) -> None:
    assert book(store).read() == ()
    book(store).write(COSTS)
    assert book(store).read() == COSTS


@pytest.mark.parametrize(
    "stage",
    [StageConfig(kind="unet", cores="0-1"), StageConfig(kind="unet", threads=2), StageConfig(kind="unet", streams=2)],
)
def test_another_layout_has_costs_of_its_own(stage: StageConfig, store: FigureStore) -> None:
    book(store).write(COSTS)
    if stage.cores:
        other = Config(stage=(stage, StageConfig(kind="text", cores="2"), StageConfig(kind="vae", cores="3")))
    else:
        other = msgspec.structs.replace(Config(), stage=(stage,))
    assert book(store, other).read() == ()


def test_nothing_learned_forgets_nothing(store: FigureStore) -> None:
    book(store).write(COSTS)
    book(store).write(())
    assert book(store).read() == COSTS
