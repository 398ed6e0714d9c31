"""Routes: the legs that a job passes, as data. Whoever adds a task adds it here, and a route that has it.

Each leg names its task, the kind of process that does it, the pool of slots that it writes to and those that it reads
from. A slot is held from the moment it is reserved for a leg's output until the last leg that reads it is done::

    leg          kind   reads      writes
    encode_text  text   -          embeds
    denoise      unet   embeds     latents
    decode       vae    latents    image
"""

from typing import Literal, NamedTuple

from stages.core.tasks import TaskName
from stages.core.wire import Kind

Pool = Literal["embeds", "latents", "image"]


class Leg(NamedTuple):
    """One task of a job, and the process and slots that it takes."""

    task: TaskName
    kind: Kind
    writes: Pool
    reads: tuple[Pool, ...] = ()


Route = tuple[Leg, ...]

TEXT_TO_IMAGE: Route = (
    Leg("encode_text", "text", "embeds"),
    Leg("denoise", "unet", "latents", ("embeds",)),
    Leg("decode", "vae", "image", ("latents",)),
)

ROUTES: tuple[Route, ...] = (TEXT_TO_IMAGE,)
LEGS: dict[TaskName, Leg] = {leg.task: leg for route in ROUTES for leg in route}
"""The leg of every task: whatever the route, a task is done by one kind, and has its slots in the same pools."""

POOLS: tuple[Pool, ...] = tuple(dict.fromkeys(leg.writes for leg in LEGS.values()))

STEPWISE: Kind = "unet"
"""The kind whose tasks go in steps, each with a checkpoint in the output slot: a job of it may be overtaken between any
two, goes on elsewhere where it was, shares forwards with others, and has previews."""

PREVIEWS: Kind = "vae"
"""The kind that draws previews of what the stepwise one is working on."""


def kinds(pool: Pool) -> frozenset[Kind]:
    """The kinds of processes whose jobs hold slots of `pool`: those that write there, and those that read."""
    return frozenset(leg.kind for leg in LEGS.values() if pool == leg.writes or pool in leg.reads)
