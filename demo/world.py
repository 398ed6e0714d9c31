"""The small world that the embedded model knows: what can be in a scene, and the sentence that says so."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random

RIDERS = ("astronaut", "robot", "cat", "dog", "princess", "penguin", "wizard", "bear", "frog", "monkey")
"""Subjects that may ride."""

MOUNTS = ("horse", "unicorn", "dragon", "elephant", "whale", "bicycle", "car", "rocket", "turtle", "camel")
"""Subjects that may be ridden."""

THINGS = (
    *("castle", "tree", "cactus", "house", "fish", "bird"),
    *("apple", "pizza", "guitar", "sailboat", "balloon", "flower"),
)
"""Subjects that do neither."""

SUBJECTS = RIDERS + MOUNTS + THINGS

PLACES = (
    *("on mars", "on the moon", "in space", "in the desert", "in a forest", "under the sea", "in the snow"),
    *("at sunset", "on a blue background", "on a white background"),
)

STYLES = ("a photo of", "a sketch of", "pixel art of", "a watercolor of")

BLURRY = "blurry"
LOW_RESOLUTION = "low resolution"

UNNAMED_STYLE = 0.15
"""Share of captions that name no style; such a picture looks like a photo."""

DEGRADED = 0.10
"""Share of scenes that are drawn badly on purpose, so that a negative prompt has something to lead away from."""

NEGATIVE_PROMPT = f"{LOW_RESOLUTION}, {BLURRY}"


class Relation(StrEnum):
    """The number of subjects, and how they stand to each other."""

    ALONE = "alone"
    RIDING = "riding"
    BESIDE = "beside"


RELATIONS = tuple(Relation)


@dataclass(frozen=True)
class Scene:
    """The content of one picture. `second` is the mount, or the subject to the right of `first`; None when alone."""

    first: str
    second: str | None
    relation: Relation
    place: str
    style: str
    names_style: bool = True
    flaws: tuple[str, ...] = ()
    """BLURRY, LOW_RESOLUTION, both or neither."""

    def caption(self) -> str:
        """The caption of the scene, which is the prompt for it."""
        match self.relation:
            case Relation.ALONE:
                who = _with_article(self.first)
            case Relation.RIDING:
                who = f"{_with_article(self.first)} riding {_with_article(self.second or '')}"
            case Relation.BESIDE:
                who = f"{_with_article(self.first)} and {_with_article(self.second or '')}"
        style = f"{self.style} " if self.names_style else ""
        return ", ".join((f"{style}{who} {self.place}", *self.flaws))


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def random_scene(random: Random, flawless: bool = False) -> Scene:
    """A random scene: half of all have one subject, a third a rider, the others two side by side."""
    relation = random.choices(RELATIONS, (0.5, 0.33, 0.17))[0]
    first, second = _cast(random, relation)
    flaws: tuple[str, ...] = ()
    if not flawless and random.random() < DEGRADED:
        flaws = random.choice(((BLURRY,), (LOW_RESOLUTION,), (LOW_RESOLUTION, BLURRY)))
    names_style = random.random() >= UNNAMED_STYLE
    return Scene(
        first,
        second,
        relation,
        place=random.choice(PLACES),
        style=random.choice(STYLES) if names_style else STYLES[0],
        names_style=names_style,
        flaws=flaws,
    )


def _cast(random: Random, relation: Relation) -> tuple[str, str | None]:
    match relation:
        case Relation.ALONE:
            return random.choice(SUBJECTS), None
        case Relation.RIDING:
            return random.choice(RIDERS), random.choice(MOUNTS)
        case Relation.BESIDE:
            first, second = random.sample(SUBJECTS, 2)
            return first, second
