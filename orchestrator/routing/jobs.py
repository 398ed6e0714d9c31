"""Prompts, the images to make for them, and the processes that make them, as the router knows them."""

from dataclasses import dataclass, field

from orchestrator.routing.request import Request
from stages.core import wire
from stages.core.arena import SlotRef
from stages.core.order import SchedulingKey
from stages.core.pipes import Input
from stages.core.route import STEPWISE, Leg, Pool, Route
from stages.core.tasks import TaskName
from stages.core.wire import Kind

Owner = bytes | str
"""The owner of a prompt: a name that a client has chosen, or the routing id of the connection itself."""


@dataclass(eq=False)
class Prompt:
    """One accepted submit: its owner, who is told of it, and the jobs that are still to be done for it."""

    owner: Owner
    submit: wire.Submit
    listeners: dict[bytes, None]
    """Connections that are told of it, in the order in which they came."""
    last_sent_ns: int
    """When its listeners last heard of it."""
    last_estimate_ns: int = 0
    """When they last heard an estimate."""
    jobs: set[int] = field(default_factory=set)
    images: list[tuple[wire.Image, bytes]] = field(default_factory=list)
    """Images that are done, where the owner has a name and so may ask for them again."""
    began_ns: int = 0
    """When its first job was sent to a stage."""
    numbers: tuple[int, ...] = ()
    """Numbers of all its jobs, those that are done included."""

    @property
    def id(self) -> str:
        """The id that its owner knows it by."""
        return self.submit.id


@dataclass(eq=False)
class Job:
    """One image to make, and where it is on its route."""

    number: int
    prompt: Prompt
    index: int
    request: Request
    evaluations: int
    """U-Net evaluations in all."""
    rows: int
    """Batch rows of each of them."""
    submitted_ns: int
    scheduling_key: SchedulingKey
    place: int = 0
    """Index in its route of the leg that it is at, or waits for."""
    stage: str | None = None
    """The process that has it; None while it waits."""
    held: dict[Pool, Input] = field(default_factory=dict)
    """Outputs of earlier legs that this leg or a later one reads."""
    output: SlotRef | None = None
    """The slot that this leg writes to, once it has been sent to a stage."""
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
    died_at: tuple[int, int] | None = None
    """Place and step at which the last of them died."""
    spoiled: int = 0
    """How often what it was made from, or what came of it, was found spoiled."""
    fatal_previews: int = 0
    """How many stages died that had a preview of it to draw."""
    cancelled: bool = False
    """Given up while in a stage; its slots are free as soon as the stage has let go."""
    finished_ns: int = 0
    """When the last leg was done, if the next stage was idle and it went straight there: a hop is measured."""
    spans: dict[TaskName, tuple[int, int]] = field(default_factory=dict)
    """When each task was begun and done, nanoseconds."""

    @property
    def route(self) -> Route:
        """The legs that it passes."""
        return self.request.route

    @property
    def leg(self) -> Leg:
        """The leg that it is at, or waits for."""
        return self.route[self.place]

    @property
    def kind(self) -> Kind:
        """The kind of stage that does this leg."""
        return self.leg.kind

    @property
    def first(self) -> bool:
        """Whether nothing has been done for it yet."""
        return self.place == 0

    @property
    def last(self) -> bool:
        """Whether this leg makes the picture."""
        return self.place == len(self.route) - 1

    @property
    def stepwise(self) -> bool:
        """Whether this leg goes in steps, each with a checkpoint in the output slot."""
        return self.kind == STEPWISE

    @property
    def tasks_left(self) -> tuple[TaskName, ...]:
        """The task of this leg and those of the legs after it."""
        return self.request.tasks[self.place :]

    @property
    def rows_left(self) -> int:
        """Rows of U-Net forwards to come; the U-Net itself says how many evaluations there are, once it has begun."""
        return self.rows * (self.steps - self.step if self.stepwise and self.step else self.evaluations)


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
