"""A client's request, checked against what is served and with every default filled in. Pure."""

import math
from typing import Any

import msgspec

from stages.core.errors import BadRequest
from stages.core.model import ModelCard
from stages.core.schedule_names import SCHEDULE_NAMES, evaluations, own_schedule
from stages.core.wire import Format, Submit, Syntax

MAX_PROMPT = 32_000
MAX_STEPS = 200
MAX_GUIDANCE = 100.0
MAX_IMAGES = 10
MAX_CLIP_SKIP = 11
SEEDS = 1 << 64
_NAMES = ", ".join(SCHEDULE_NAMES)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What one image is made of; two equal requests make the same bytes."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    seed: int
    width: int
    height: int
    schedule: str | None
    guidance_rescale: float
    syntax: Syntax
    clip_skip: int
    output_format: Format

    @property
    def pixels(self) -> int:
        """Of the picture."""
        return self.width * self.height

    def evaluations(self, card: ModelCard) -> int:
        """U-Net evaluations that the steps take; some schedules make more than one a step."""
        return evaluations(self.schedule or own_schedule(card.scheduler) or "", self.steps)

    def metadata(self, card: ModelCard) -> dict[str, str]:
        """The text that goes into the file: `parameters` as AUTOMATIC1111 writes it, `triptych` as JSON."""
        sampler = self.schedule or own_schedule(card.scheduler)
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        lines.append(
            f"Steps: {self.steps}, Sampler: {sampler}, CFG scale: {self.guidance_scale:g}, Seed: {self.seed}, "
            f"Size: {self.width}x{self.height}, Model: {card.name}"
            + (f", Clip skip: {self.clip_skip + 1}" if self.clip_skip else "")  # it counts from the last layer as 1
        )
        facts: dict[str, Any] = msgspec.structs.asdict(self) | {"schedule": sampler, "model": card.name}
        return {"parameters": "\n".join(lines), "triptych": msgspec.json.encode(facts).decode()}


def resolve(submit: Submit, card: ModelCard, sizes: tuple[tuple[int, int], ...], draw: int) -> list[Request]:
    """The images a prompt asks for. `draw` is the seed where none is named; image i has the seed + i.

    Raises BadRequest naming the field and what would be accepted.
    """
    _check_id(submit.id)
    _check_text("prompt", submit.prompt)
    if not submit.prompt.strip():
        raise BadRequest("`prompt` is blank; say what to draw")
    _check_text("negative_prompt", submit.negative_prompt)
    _check_range("n", submit.n, 1, MAX_IMAGES)
    steps = card.steps if submit.steps is None else submit.steps
    _check_range("steps", steps, 1, MAX_STEPS)
    guidance = card.guidance_scale if submit.guidance_scale is None else submit.guidance_scale
    if not math.isfinite(guidance):
        raise BadRequest("`guidance_scale` is not a finite number")
    _check_range("guidance_scale", guidance, 0, MAX_GUIDANCE)
    if not 0 <= submit.guidance_rescale <= 1:  # NaN is not, either
        raise BadRequest(f"`guidance_rescale` must be from 0 to 1, not {submit.guidance_rescale}")
    _check_range("clip_skip", submit.clip_skip, 0, MAX_CLIP_SKIP)
    if submit.min_steps is not None:
        _check_range("min_steps", submit.min_steps, 1, steps)
    _check_range("preview_every", submit.preview_every, 0, MAX_STEPS)
    _check_range("priority", submit.priority, -100, 100)
    if submit.deadline_s is not None:
        _check_range("deadline_s", submit.deadline_s, 0, 86_400)
    seed = draw if submit.seed is None else submit.seed
    if not 0 <= seed < SEEDS:
        raise BadRequest(f"`seed` must be from 0 to 2^64 - 1, not {seed}; leave it out for a random one")
    if submit.schedule is not None and submit.schedule not in SCHEDULE_NAMES:
        raise BadRequest(f"`schedule` {submit.schedule[:40]!r} is unknown; there are {_NAMES}")
    schedule = card.schedule if submit.schedule is None else submit.schedule
    if schedule is None and own_schedule(card.scheduler) is None:
        own = str(card.scheduler.get("_class_name"))[:60]
        raise BadRequest(f"`schedule` has to be named: the model's own, {own}, is not served; there are {_NAMES}")
    width, height = _size(submit, sizes)
    return [
        Request(
            prompt=submit.prompt,
            negative_prompt=submit.negative_prompt,
            steps=steps,
            guidance_scale=float(guidance),
            seed=(seed + index) % SEEDS,
            width=width,
            height=height,
            schedule=schedule,
            guidance_rescale=float(submit.guidance_rescale),
            syntax=submit.syntax,
            clip_skip=submit.clip_skip,
            output_format=submit.output_format,
        )
        for index in range(submit.n)
    ]


def _check_id(id: str) -> None:
    if not 0 < len(id) <= 128 or not id.isprintable():
        raise BadRequest("`id` must be 1 to 128 printable characters")


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_PROMPT:
        raise BadRequest(f"`{field}` has {len(text):,} characters; at most {MAX_PROMPT:,} are read")
    if "\0" in text:
        raise BadRequest(f"`{field}` holds a NUL character")


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadRequest(f"`{field}` must be from {low:g} to {high:g}, not {value}")


def _size(submit: Submit, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The size asked for, if it is served; the first one served where none, or half of one, is named."""
    width = sizes[0][0] if submit.width is None else submit.width
    height = sizes[0][1] if submit.height is None else submit.height
    if (width, height) in sizes:
        return (width, height)
    served = ", ".join(f"{w}x{h}" for w, h in sizes)
    nearest = min(sizes, key=lambda size: abs(size[0] - width) + abs(size[1] - height))
    raise BadRequest(
        f"`width` x `height` {width}x{height} is not served; the nearest is {nearest[0]}x{nearest[1]} "
        f"(served: {served}; more with model.sizes in the configuration)"
    )
