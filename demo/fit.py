"""The training loop that all networks share: seeded by the step, resumable, with progress and a falling rate.

Every random choice of a step comes from a generator seeded by that step, so a run that was stopped and resumed sees
what an uninterrupted one would have seen.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from demo.command import STDERR
from demo.latents import best_device
from stages.core.errors import ConfigError

_WARM_UP = 100
"""Steps in which the learning rate rises; fewer, a twentieth of all, in a short training."""

_DECAY = 0.4
"""Share of the steps, the last ones, in which the learning rate falls to nothing."""

_SAVE_EVERY_S = 300.0

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Learner(Protocol):
    """One network (or two trained as one) with its data."""

    rate: float
    """The highest learning rate."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of all weights that learn."""

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """The loss of one batch, chosen by the generator."""

    def stepped(self, step: int) -> None:
        """Note that the weights have changed."""

    def parts(self) -> Mapping[str, Any]:
        """The parts of a checkpoint, with `state_dict` and `load_state_dict`, by name."""


@dataclass(frozen=True)
class Plan:
    """The length of a training, and the file of its checkpoint."""

    steps: int
    checkpoint: Path
    seed: int = 0
    sample: Callable[[int], None] | None = None
    """Draws what the network can do so far; called whenever a checkpoint is written, with the step."""


def rate_share(step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`, as a share of the highest: up, level, and down to nothing."""
    left = (steps - step) / max(1.0, _DECAY * steps)
    warm_up = max(1, min(_WARM_UP, steps // 20))
    return max(0.0, min(1.0, (step + 1) / warm_up, left))


def fit(learner: Learner, plan: Plan) -> list[float]:
    """Train up to `plan.steps`, from the checkpoint if there is one; the loss of every step since the very first.

    SIGINT and SIGTERM end it after the step at work, with a checkpoint, by KeyboardInterrupt. Raises ConfigError if the
    checkpoint is of other networks.
    """
    losses = _restore(learner, plan.checkpoint)
    progress = Progress(
        TextColumn(f"{plan.checkpoint.stem} loss {{task.fields[loss]}}"),
        *Progress.get_default_columns()[1:3],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=STDERR,
    )
    task = progress.add_task("", total=plan.steps, completed=len(losses), loss="-")
    saved = time.monotonic()
    with progress, _deferred_signals() as signals:
        for step in range(len(losses), plan.steps):
            generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
            torch.manual_seed(plan.seed * 1_000_003 + step)
            for group in learner.optimizer.param_groups:
                group["lr"] = learner.rate * rate_share(step, plan.steps)
            learner.optimizer.zero_grad(set_to_none=True)
            loss = learner.loss(step, generator)
            loss.backward()
            for group in learner.optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            learner.optimizer.step()
            learner.stepped(step)
            losses.append(loss.item())
            recent = losses[-200:]
            progress.update(task, completed=step + 1, loss=f"{sum(recent) / len(recent):.4f}")
            if signals or time.monotonic() - saved > _SAVE_EVERY_S or step + 1 == plan.steps:
                _save(learner, plan.checkpoint, losses)
                progress.console.print(f"{plan.checkpoint.stem} {step + 1}: loss {sum(recent) / len(recent):.4f}")
                if signals:
                    raise KeyboardInterrupt
                if plan.sample:
                    plan.sample(step + 1)
                saved = time.monotonic()
    return losses


@contextmanager
def _deferred_signals() -> Iterator[list[int]]:
    """Signals to end, as they come, in a list: a step is not left half done."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(learner: Learner, path: Path, losses: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in {**learner.parts(), "optimizer": learner.optimizer}.items()}
    unfinished = path.with_suffix(".unfinished")
    torch.save({"losses": losses, "state": state}, unfinished)
    os.replace(unfinished, path)


def _restore(learner: Learner, path: Path) -> list[float]:
    if not path.exists():
        return []
    try:
        kept = torch.load(path, map_location=best_device(), weights_only=True)
        for name, part in {**learner.parts(), "optimizer": learner.optimizer}.items():
            part.load_state_dict(kept["state"][name])
    except (RuntimeError, KeyError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} is of another training ({first}); remove it to begin anew") from error
    losses: list[float] = kept["losses"]
    return losses
