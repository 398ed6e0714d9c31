"""The memory that a plan needs, estimated before anything is started."""

import msgspec

from orchestrator.plan import Plan
from stages.core.model import ir
from stages.core.wire import Kind

_PROCESS_BYTES = 200 << 20
"""Bytes that a stage process takes beside its model, about: Python, OpenVINO and a tokenizer."""


class Footprint(msgspec.Struct, frozen=True):
    """Memory of a planned pipeline, in bytes."""

    weights_bytes: int
    """Bytes of the files of weights, once for every process that loads them."""
    needed_bytes: int
    """Bytes needed while everything loads, which is when most is needed."""


def part_bytes(planned: Plan) -> dict[str, int]:
    """Bytes of the weights of every part of the model, by part."""
    card = planned.card
    return {part: ir(card.path, part).with_suffix(".bin").stat().st_size for part in card.parts}


def footprint(planned: Plan) -> Footprint:
    """The memory estimated for a plan: twice the weights, the processes, the arena."""
    sizes = part_bytes(planned)
    text = sum(sizes[part] for part in planned.card.text_encoders)
    by_kind: dict[Kind, int] = {"text": text, "unet": sizes["unet"], "vae": sizes["vae_decoder"]}
    weights = sum(by_kind[stage.kind] for stage in planned.stages)
    # While a model loads, its file is mapped beside the weights that are repacked from it.
    return Footprint(weights, 2 * weights + planned.arena_bytes + len(planned.stages) * _PROCESS_BYTES)
