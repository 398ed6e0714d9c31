"""The training loop, with a network of one layer."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from demo.fit import Plan, fit, rate_share


class Line:
    """Learns y = 3 x (`fit.Learner`)."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.rate = 0.1
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=self.rate)
        self.rates: list[float] = []
        self._interrupted_at = interrupted_at

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(8, 1, generator=generator)
        return ((self.layer(x) - 3 * x) ** 2).mean()

    def stepped(self, step: int) -> None:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        if step == self._interrupted_at:
            os.kill(os.getpid(), signal.SIGINT)

    def parts(self) -> Mapping[str, Any]:
        return {"layer": self.layer}


def test_it_learns(tmp_path: Path) -> None:
    losses = fit(Line(), Plan(100, tmp_path / "line.pt"))
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize("interrupted_at", [0, 17, 28])
def test_a_training_that_is_interrupted_goes_on_as_if_it_had_not_been(tmp_path: Path, interrupted_at: int) -> None:
    whole = Line()
    losses = fit(whole, Plan(30, tmp_path / "whole.pt", seed=4))
    with pytest.raises(KeyboardInterrupt):
        fit(Line(interrupted_at), Plan(30, tmp_path / "parts.pt", seed=4))
    resumed = Line()
    assert fit(resumed, Plan(30, tmp_path / "parts.pt", seed=4)) == losses
    assert len(resumed.rates) == 29 - interrupted_at
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    first, second = (fit(Line(), Plan(3, tmp_path / f"{seed}.pt", seed)) for seed in (1, 2))
    assert first != second


def test_a_finished_training_is_left_as_it_is(tmp_path: Path) -> None:
    plan = Plan(5, tmp_path / "line.pt")
    losses = fit(Line(), plan)
    again = Line()
    assert fit(again, plan) == losses
    assert again.rates == []


def test_signals_mean_what_they_meant_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    fit(Line(), Plan(2, tmp_path / "line.pt"))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("steps", [1, 30, 20_000])
def test_the_rate_rises_stays_and_falls_to_nearly_nothing(steps: int) -> None:
    shares = [rate_share(step, steps) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    assert max(shares) == 1
    assert steps == 1 or shares[-1] <= 1 / (0.4 * steps) + 1e-9
