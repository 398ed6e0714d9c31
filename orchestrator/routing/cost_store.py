"""Costs of the tasks of a plan when they ran before, kept between runs of a pipeline."""

from importlib.metadata import version

from orchestrator.plan import Plan
from stages.core import figures
from stages.core.costs import Cost
from stages.core.figures import FigureStore
from stages.core.model import ir


class CostBook:
    """The costs of one plan. They hold for its CPU, model and OpenVINO, and for its cores and threads."""

    def __init__(self, plan: Plan, store: FigureStore | None = None) -> None:
        """`store` is in the user's cache folder by default."""
        self._store = store or FigureStore("costs")
        layout = [
            (spec.name, spec.implementation, spec.cores, spec.threads, spec.streams, spec.max_rows)
            for spec in plan.stages
        ]
        weights = [figures.weights(ir(plan.card.path, part)) for part in plan.card.parts]
        precision = plan.stages[0].precision
        self._facts = (figures.cpu(), version("openvino"), weights, precision, plan.share, layout)

    def read(self) -> tuple[Cost, ...]:
        """The costs that are known; none at the first time."""
        return self._store.read(self._facts, tuple[Cost, ...]) or ()

    def write(self, costs: tuple[Cost, ...]) -> None:
        """Remember for the next time."""
        if costs:
            self._store.write(self._facts, costs)
