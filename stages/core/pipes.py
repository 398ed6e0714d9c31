"""Every message between the hub and its stages, and the only code that encodes or decodes one.

MessagePack arrays, trusted, never a tensor: tensors stay in the arena and messages carry `SlotRef`s. Times ending in
`_ns` are CLOCK_MONOTONIC, which all processes of one machine share.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from stages.core.arena import SlotRef
from stages.core.costs import Cost
from stages.core.order import SchedulingKey
from stages.core.tasks import Task, TaskName


class _Packed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of the messages between the hub and its stages."""


# Hub to stage.


class Input(msgspec.Struct, frozen=True, array_like=True):
    """A sealed slot to read from, and the shape of what lies there.

    Prompt embeds are [rows, tokens, dim], as stages.core.embeds lays them out; latents are [channels, height / 8,
    width / 8], float32.
    """

    slot: SlotRef
    shape: tuple[int, ...]


T_co = TypeVar("T_co", bound=Task, covariant=True)


class Run(_Packed, Generic[T_co], frozen=True):
    """Do `task` for one job: from the slots that its leg reads (stages.core.route), in that order, into `output`."""

    job: int
    task: T_co
    output: SlotRef
    inputs: tuple[Input, ...] = ()
    then: tuple[TaskName, ...] = ()
    """Tasks of the job that come after this one, by which it is ranked."""
    scheduling_key: SchedulingKey = SchedulingKey(0.0)
    costs: tuple[Cost, ...] = ()
    """Costs by which the hub ranks jobs now, told where jobs are ranked again; an engine goes by the newest."""


class DrawPreview(_Packed, frozen=True):
    """Draw what the latents in `slot`, which the U-Net is working on, look like now. Answered by one PreviewDrawn."""

    job: int
    slot: SlotRef
    shape: tuple[int, int, int]


class Drop(_Packed, frozen=True):
    """Forget the job, wherever it is; answered by Dropped, or by the Finished or Fault that was already on its way."""

    job: int


class Grant(_Packed, frozen=True):
    """The stage may compute, until it is asked back or has nothing to do."""


class AskBack(_Packed, frozen=True):
    """The stage must let its lease go after the current unit of work; answered by Yielded."""


class Stop(_Packed, frozen=True):
    """Leave after the current unit of work."""


ToStage = Run[Task] | DrawPreview | Drop | Grant | AskBack | Stop

# Stage to hub.


class Hello(_Packed, frozen=True):
    """First message of a stage process: it is alive and begins to load."""

    name: str
    pid: int


class Loaded(_Packed, frozen=True):
    """The stage can take jobs. `cores` is the union of the masks of all its threads after a warm-up."""

    load_s: float
    cores: str
    threads: int
    precision: str


class LoadFailed(_Packed, frozen=True):
    """The stage cannot load and exits."""

    code: str
    message: str


class Started(_Packed, frozen=True):
    """The stage has taken the job up, where it stands: after `step` of `steps`."""

    job: int
    began_ns: int
    step: int = 0
    steps: int = 1


class Stepped(_Packed, frozen=True):
    """The U-Net has finished step `step` of `steps` of the job; the checkpoint in its slot says so too."""

    job: int
    step: int
    steps: int
    began_ns: int
    ended_ns: int
    cost_ns: int
    """Its share of the forward: other jobs may have rows in it, and other forwards be in flight."""


class Finished(_Packed, frozen=True):
    """The stage has done its task of the job; the output slot is sealed, and holds an array of `shape`."""

    job: int
    shape: tuple[int, ...]
    began_ns: int
    ended_ns: int


class PreviewDrawn(_Packed, frozen=True):
    """A JPEG of the job as it was after `step` steps; no bytes, and step 0, where none could be drawn."""

    job: int
    step: int
    jpeg: bytes


class Dropped(_Packed, frozen=True):
    """The stage has forgotten the job."""

    job: int


class Yielded(_Packed, frozen=True):
    """The stage has let its lease go, because it was asked to or has nothing to do."""


class Fault(_Packed, frozen=True):
    """The job raised an error in the stage; the stage goes on."""

    job: int
    code: str
    message: str


FromStage = Hello | Loaded | LoadFailed | Started | Stepped | Finished | PreviewDrawn | Dropped | Fault | Yielded
Report = Started | Stepped | Finished | Dropped | Fault

_pack = msgspec.msgpack.Encoder().encode
_to_stage: msgspec.msgpack.Decoder[ToStage] = msgspec.msgpack.Decoder(ToStage)
_from_stage: msgspec.msgpack.Decoder[list[FromStage]] = msgspec.msgpack.Decoder(list[FromStage])


def pack_to_stage(message: ToStage) -> bytes:
    """Encode a message of the hub to a stage."""
    return _pack(message)


def pack_from_stage(messages: Sequence[FromStage]) -> bytes:
    """Encode messages of a stage to the hub, which go in one frame."""
    return _pack(messages)


def unpack_to_stage(frame: bytes) -> ToStage:
    """Decode what the hub sent to a stage. Raises one of UNREADABLE."""
    return _to_stage.decode(frame)


def unpack_from_stage(frame: bytes) -> list[FromStage]:
    """Decode what a stage sent to the hub. Raises one of UNREADABLE."""
    return _from_stage.decode(frame)
