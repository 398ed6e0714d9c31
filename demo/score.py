"""The score of pictures: the judge's verdicts, compared with what was asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from demo.world import Relation, Scene


@dataclass(frozen=True)
class Verdict:
    """The judge's verdict on a picture."""

    first: str
    second: str | None
    relation: Relation
    place: str
    style: str

    def subjects_right(self, scene: Scene) -> bool:
        """Whether everybody asked for is there, and nobody else; who stands on which side does not count."""
        return {self.first, self.second} == {scene.first, scene.second}


@dataclass(frozen=True)
class Figures:
    """Shares of the prompts, 0 to 1; NaN where none of the prompts is of that kind."""

    prompts: int
    subject: float
    """Share with the subject and nobody else, of the prompts of one subject."""
    riding: float
    """Share with rider and mount both right and riding, of the prompts of a ride."""
    beside: float
    """Share with both subjects right, whatever their sides, of the prompts of two side by side."""
    place: float
    style: float
    """Share drawn in the style asked for, of the prompts that name one."""
    sharper: float
    """Share of pairs in which the picture with the negative prompt is sharper than the one without."""
    sharpness_gain: float
    """Mean sharpness with the negative prompt, over that without, less one."""


def figures(
    scenes: Sequence[Scene], seen: Sequence[Verdict], sharp: npt.NDArray[np.float64], plain: npt.NDArray[np.float64]
) -> Figures:
    """The figures of prompts; `sharp` and `plain`: sharpness of pairs, with and without the negative prompt."""
    pairs = list(zip(scenes, seen, strict=True))

    def subjects_of(relation: Relation) -> float:
        return _share(
            verdict.subjects_right(scene) and (relation != Relation.RIDING or verdict.relation == Relation.RIDING)
            for scene, verdict in pairs
            if scene.relation == relation
        )

    return Figures(
        prompts=len(pairs),
        subject=subjects_of(Relation.ALONE),
        riding=subjects_of(Relation.RIDING),
        beside=subjects_of(Relation.BESIDE),
        place=_share(verdict.place == scene.place for scene, verdict in pairs),
        style=_share(verdict.style == scene.style for scene, verdict in pairs if scene.names_style),
        sharper=_share(sharp > plain),
        sharpness_gain=float(sharp.mean() / plain.mean() - 1) if len(plain) else float("nan"),
    )


def _share(right: Iterable[bool]) -> float:
    counted = np.array(list(right), float)
    return float(counted.mean()) if counted.size else float("nan")


def accuracy(scenes: Sequence[Scene], seen: Sequence[Verdict]) -> dict[str, float]:
    """Share of renders that a judge is right about, by head."""
    pairs = list(zip(scenes, seen, strict=True))
    right = {"subjects": _share(verdict.subjects_right(scene) for scene, verdict in pairs)}
    for name in ("relation", "place", "style"):
        right[name] = _share(getattr(verdict, name) == getattr(scene, name) for scene, verdict in pairs)
    return right


def sharpness(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Mean absolute difference of neighbouring pixels of each picture [n, h, w, 3], in steps of 255."""
    values = pictures.astype(np.float64)
    across = np.abs(np.diff(values, axis=2)).mean((1, 2, 3))
    down = np.abs(np.diff(values, axis=1)).mean((1, 2, 3))
    gradients: npt.NDArray[np.float64] = (across + down) / 2
    return gradients
