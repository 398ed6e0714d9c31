"""What the router knows of prompts, of their images, and of the processes that make them."""

from dataclasses import dataclass, field

from orchestrator.routing.request import Request
from stages.core import wire
from stages.core.arena import SlotRef
from stages.core.order import SchedulingKey
from stages.core.wire import Kind


@dataclass(eq=False)
class Prompt:
    """One accepted submit: its client, and the jobs that are still to be done for it."""

    client: bytes
    id: str
    trace: bool
    preview_every: int
    last_sent_ns: int
    """When its client last heard of it."""
    estimated_ns: int = 0
    """When its client last heard an estimate."""
    jobs: set[int] = field(default_factory=set)
    slices: list[wire.Slice] = field(default_factory=list)


@dataclass(eq=False)
class Job:
    """One image to make, and where it is."""

    number: int
    prompt: Prompt
    index: int
    request: Request
    evaluations: int
    """Of the U-Net, in all."""
    rows: int
    """Batch rows of each of them."""
    submitted_ns: int
    scheduling_key: SchedulingKey
    kind: Kind = "text"
    """The kind of stage it is in, or waits for."""
    stage: str | None = None
    """The process that has it; None while it waits."""
    input: SlotRef | None = None
    input_shape: tuple[int, ...] = ()
    output: SlotRef | None = None
    step: int = 0
    steps: int = 1
    previewed: int = 0
    """The step that the last preview showed."""
    suspect: bool = False
    """Whether it was in a stage that died, and has not come a step further since: it has a stage to itself now."""
    started: bool = False
    """Whether the stage that has it has said that it works on it."""
    deaths: int = 0
    """Faults of stages that worked on it and had nothing else, all at `died_at`."""
    doubtful_deaths: int = 0
    """The same of stages that were killed by others, or had not said yet that they worked on it."""
    died_at: tuple[Kind, int] | None = None
    """Kind of stage and step at which the last of them died."""
    spoiled: int = 0
    """How often what it was made from, or what came of it, was found spoiled."""
    fatal_previews: int = 0
    """How many stages died that had a preview of it to draw."""
    cancelled: bool = False
    """Given up while in a stage; its slots are free as soon as the stage has let go."""
    finished_ns: int = 0
    """When the last stage put it down, if the next one was idle and it went straight there: a hop is measured."""
    held: dict[int, tuple[str, int]] = field(default_factory=dict)
    """For the trace: pool and time of reservation, by slot index."""
    spans: dict[Kind, tuple[int, int]] = field(default_factory=dict)
    """When each kind of stage took it up and put it down."""

    @property
    def rows_left(self) -> int:
        """Rows of U-Net forwards to come; the U-Net itself says how many evaluations there are, once it has begun."""
        return self.rows * (self.steps - self.step if self.kind == "unet" and self.step else self.evaluations)


@dataclass(eq=False)
class StageProcess:
    """One stage process as the router sees it."""

    name: str
    number: int
    kind: Kind
    pid: int | None = None
    """None while it is not serving."""
    jobs: list[int] = field(default_factory=list)
    previews: set[int] = field(default_factory=set)
    """Jobs that it has a preview to draw of."""
