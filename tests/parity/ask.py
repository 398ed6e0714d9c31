"""What a picture is made of, in the terms that all programs share."""

from dataclasses import dataclass, replace

from tests.parity.families import Family

PROMPT = "a photo of an astronaut riding a horse on mars"
NEGATIVE = "low resolution, blurry"
SEED = 7

OWN = "its own"
"""Label of a picture by the schedule that the model's folder names."""
WIDE = "no square"
PLAIN = "no negative prompt"
MILD = "half the guidance"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One picture. An empty negative prompt is none; a schedule of None is the model's own."""

    prompt: str = PROMPT
    negative_prompt: str = ""
    seed: int = SEED
    steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    clip_skip: int = 0
    schedule: str | None = None
    width: int
    height: int


def asks(family: Family) -> dict[str, Ask]:
    """The pictures that are compared for a family, by label."""
    guided = family.guidance_scale > 1
    first = Ask(
        negative_prompt=NEGATIVE if guided and family.negative_prompts else "",
        steps=family.steps,
        guidance_scale=family.guidance_scale,
        schedule=family.schedules[0],
        width=family.side,
        height=family.side,
    )
    labelled = {schedule or OWN: replace(first, schedule=schedule) for schedule in family.schedules}
    labelled |= {f'"{prompt}"': replace(first, prompt=prompt) for prompt in family.more_prompts}
    if guided:
        labelled[MILD] = replace(first, guidance_scale=first.guidance_scale / 2)
        labelled["clip skip"] = replace(first, clip_skip=1)
    if first.negative_prompt:
        labelled["guidance rescale"] = replace(first, guidance_rescale=0.7)
        labelled[PLAIN] = replace(first, negative_prompt="")
    return labelled | {WIDE: replace(first, width=first.width * 3 // 2)}
