"""A client's request, checked against what is served and with every default filled in. Pure."""

import math
from typing import Any, assert_never

import msgspec

from stages.core.errors import BadRequest
from stages.core.model import ModelCard
from stages.core.route import ROUTES, TEXT_TO_IMAGE, Route
from stages.core.schedule_names import SCHEDULE_NAMES, evaluations, own_schedule
from stages.core.tasks import Decode, Denoise, EncodeText, Task, TaskName
from stages.core.wire import Format, Submit

MAX_NAME = 128
MAX_PROMPT = 32_000
MAX_STEPS = 200
MAX_GUIDANCE = 100.0
MAX_IMAGES = 10
MAX_CLIP_SKIP = 11
SEEDS = 1 << 64
_NAMES = ", ".join(SCHEDULE_NAMES)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One image to make, as the tasks that make it; two equal requests make the same bytes."""

    text: EncodeText
    denoise: Denoise
    output_format: Format

    @property
    def route(self) -> Route:
        """The legs that make it."""
        return TEXT_TO_IMAGE

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks of its legs."""
        return _TASKS[self.route]

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.denoise.pixels

    def with_steps(self, steps: int) -> "Request":
        """The same with another number of steps."""
        return msgspec.structs.replace(self, denoise=msgspec.structs.replace(self.denoise, steps=steps))

    def evaluations(self, card: ModelCard) -> int:
        """U-Net evaluations that the steps take; some schedules make more than one a step."""
        return evaluations(self.denoise.schedule or own_schedule(card.scheduler) or "", self.denoise.steps)

    def task(self, name: TaskName, card: ModelCard) -> Task:
        """The task of that name."""
        match name:
            case "encode_text":
                return self.text
            case "denoise":
                return self.denoise
            case "decode":
                return Decode(self.output_format, self.metadata(card))
            case _:
                assert_never(name)

    def metadata(self, card: ModelCard) -> dict[str, str]:
        """The text that goes into the file: `parameters` as AUTOMATIC1111 writes it, `triptych` as JSON."""
        text, denoise = self.text, self.denoise
        sampler = denoise.schedule or own_schedule(card.scheduler)
        lines = [text.prompt]
        if text.negative_prompt:
            lines.append(f"Negative prompt: {text.negative_prompt}")
        lines.append(
            f"Steps: {denoise.steps}, Sampler: {sampler}, CFG scale: {denoise.guidance_scale:g}, "
            f"Seed: {denoise.seed}, Size: {denoise.width}x{denoise.height}, Model: {card.name}"
            + (f", Clip skip: {text.clip_skip + 1}" if text.clip_skip else "")  # it counts from the last layer as 1
        )
        facts: dict[str, Any] = msgspec.structs.asdict(text) | msgspec.structs.asdict(denoise)
        del facts["guided"]  # it follows from the guidance scale and the model
        facts |= {"schedule": sampler, "output_format": self.output_format, "model": card.name}
        return {"parameters": "\n".join(lines), "triptych": msgspec.json.encode(facts).decode()}


_TASKS: dict[Route, tuple[TaskName, ...]] = {route: tuple(leg.task for leg in route) for route in ROUTES}


def resolve(submit: Submit, card: ModelCard, sizes: tuple[tuple[int, int], ...], draw: int) -> list[Request]:
    """The images a prompt asks for. `draw` is the seed where none is named; image i has the seed + i.

    Raises BadRequest naming the field and what would be accepted.
    """
    check_name("id", submit.id)
    if submit.owner is not None:
        check_name("owner", submit.owner)
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
    text = EncodeText(
        prompt=submit.prompt,
        negative_prompt=submit.negative_prompt,
        guided=card.rows(guidance) == 2,
        syntax=submit.syntax,
        clip_skip=submit.clip_skip,
    )
    denoise = Denoise(
        width=width,
        height=height,
        steps=steps,
        guidance_scale=float(guidance),
        guidance_rescale=float(submit.guidance_rescale),
        schedule=schedule,
        seed=seed,
    )
    seeds = ((seed + index) % SEEDS for index in range(submit.n))
    return [
        Request(text=text, denoise=msgspec.structs.replace(denoise, seed=own), output_format=submit.output_format)
        for own in seeds
    ]


def check_name(field: str, name: str) -> None:
    """Refuse what is no name of a prompt or of an owner. Raises BadRequest."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise BadRequest(f"`{field}` must be 1 to {MAX_NAME} printable characters")


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
